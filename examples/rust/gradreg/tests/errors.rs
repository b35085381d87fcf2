//! Bad input arrives as an `Error` with the library's status and sentence.

use gradreg::sys::*;
use gradreg::*;

fn table() -> Vec<Segment> {
    vec![
        segment("model.layers.0.mlp.up_proj.weight", 0, 4).unwrap(),
        segment("model.layers.1.mlp.up_proj.weight", 4, 4).unwrap(),
    ]
}

fn make(params: Params) -> Regularizer {
    let mut context = ContextOptions::new().threads(1).open().unwrap();
    Regularizer::new(&mut context, &table(), params).unwrap()
}

fn refused<T>(result: Result<T>, status: gradreg_status, words: &[&str]) {
    let error = result.err().expect("this must be refused");
    assert_eq!(error.status(), status, "{}", error);
    for word in words {
        assert!(error.to_string().contains(word), "{:?} lacks {:?}", error.to_string(), word);
    }
}

#[test]
fn the_sentence_is_the_librarys() {
    refused(
        ContextOptions::new().threads(-3).open(),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["gradreg_context_create", "threads", "-3"],
    );
    let error = ContextOptions::new().threads(-3).open().err().unwrap();
    assert_eq!(error.status_name(), "GRADREG_ERROR_INVALID_ARGUMENT");
    assert_eq!(error.kind(), Kind::Usage);
    refused(segment("", 0, 1), GRADREG_ERROR_INVALID_ARGUMENT, &["gradreg_segment_classify"]);
    refused(segment("a\0b", 0, 1), GRADREG_ERROR_INVALID_ARGUMENT, &["zero byte"]);
    refused(Policy::preset("gropo"), GRADREG_ERROR_INVALID_ARGUMENT, &["gropo"]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let mut context = Context::new().unwrap();
    let mut params = Params::new(2);
    params.epsilon = -1.0;
    refused(
        Regularizer::new(&mut context, &table(), params),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["epsilon"],
    );
    let mut params = Params::new(2);
    params.difference = GRADREG_DIFFERENCE_BACKWARD;
    refused(
        Regularizer::new(&mut context, &table(), params),
        GRADREG_ERROR_UNSUPPORTED,
        &["difference"],
    );
    let params = Params::new(2).table(vec![1.0; 3]);
    refused(
        Regularizer::new(&mut context, &table(), params),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["table has 3 elements, expected 2"],
    );
}

/// Pointers and sizes that safe code writes into the settings are not followed.
#[test]
fn made_up_pointers_are_not_followed() {
    let mut context = Context::new().unwrap();
    let mut params = Params::new(2);
    params.schedule.table = 8 as *const f64;
    params.all_reduce.user = 8 as *mut _;
    params.struct_size = 1 << 20;
    let made = Regularizer::new(&mut context, &table(), params).unwrap();
    drop(made);
    let mut schedule = schedule_for_depth(36).unwrap();
    schedule.table = 8 as *const f64;
    let m = multipliers(&schedule, &[], 36).unwrap();
    assert_eq!((m[5], m[35]), (0.0, 1.0));
    let mut policy = Policy::preset("grpo").unwrap();
    policy.struct_size = 1 << 20;
    let batch = PolicyBatch {
        sequences: 1,
        length: 2,
        logp: &[-1.0, -2.0],
        advantages: &[1.0],
        ..PolicyBatch::default()
    };
    policy_loss(&mut context, &mut [0.0; 2], None, &batch, &policy).unwrap();
}

#[test]
fn wrong_types_and_lengths_are_refused() {
    let mut r = make(Params::new(2));
    let (mut w, mut g) = (vec![1.0f32; 8], vec![1.0f32; 8]);
    let mut halves = vec![Bf16(0); 8];
    let mut wrong = Buffers::flat(&mut halves, &mut g).unwrap();
    refused(r.perturb(&mut wrong), GRADREG_ERROR_INVALID_ARGUMENT, &["params are bf16"]);
    refused(
        Buffers::flat(&mut w, &mut g[..7]),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["grads has 7 elements, expected 8"],
    );
    let mut short = Buffers::flat(&mut w[..7], &mut g[..7]).unwrap();
    refused(r.perturb(&mut short), GRADREG_ERROR_INVALID_ARGUMENT, &["buffers.count is 7"]);
    let (a, b) = w.split_at_mut(4);
    let (c, d) = g.split_at_mut(4);
    let mut scattered = Buffers::scattered(vec![
        Tensor::new(a, Some(c)).unwrap(),
        Tensor::new(&mut b[..3], Some(&mut d[..3])).unwrap(),
    ]);
    refused(
        r.perturb(&mut scattered),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["tensor 1 has 3 elements, expected 4"],
    );
    let mut one = Buffers::scattered(vec![Tensor::new(&mut w[..4], Some(&mut g[..4])).unwrap()]);
    refused(
        r.perturb(&mut one),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["1 tensors, the table has 2 segments"],
    );
}

/// A segment's own type counts, not only the regularizer's.
#[test]
fn a_table_of_wider_elements_does_not_reach_past_a_slice() {
    let mut segments = table();
    for s in &mut segments {
        s.param_type = GRADREG_TYPE_F32;
        s.grad_type = GRADREG_TYPE_F32;
    }
    let mut context = Context::new().unwrap();
    let mut params = Params::new(2);
    params.param_type = GRADREG_TYPE_BF16;
    params.grad_type = GRADREG_TYPE_BF16;
    let mut r = Regularizer::new(&mut context, &segments, params).unwrap();
    let (mut w, mut g) = (vec![Bf16(0); 8], vec![Bf16(0); 8]);
    let mut buffers = Buffers::flat(&mut w, &mut g).unwrap();
    refused(r.perturb(&mut buffers), GRADREG_ERROR_INVALID_ARGUMENT, &["the table says f32"]);
}

#[test]
fn calls_out_of_order_name_the_state() {
    let mut r = make(Params::new(2));
    let (mut w, mut g) = (vec![1.0f32; 8], vec![1.0f32; 8]);
    refused(
        r.combine(&mut Buffers::flat(&mut w, &mut g).unwrap()),
        GRADREG_ERROR_STATE,
        &["gradreg_regularizer_combine"],
    );
}

#[test]
fn a_gradient_that_vanished_between_the_passes_is_refused() {
    let mut r = make(Params::new(2));
    let (mut w, mut g) = (vec![1.0f32; 8], vec![1.0f32; 8]);
    let clean = w.clone();
    let (a, b) = w.split_at_mut(4);
    let (c, d) = g.split_at_mut(4);
    let mut both = Buffers::scattered(vec![
        Tensor::new(a, Some(c)).unwrap(),
        Tensor::new(b, Some(d)).unwrap(),
    ]);
    r.perturb(&mut both).unwrap();
    let (a, b) = w.split_at_mut(4);
    assert_ne!(a, &clean[..4]);
    let mut one = Buffers::scattered(vec![
        Tensor::new(a, Some(&mut g[..4])).unwrap(),
        Tensor::new::<f32, f32>(b, None).unwrap(),
    ]);
    refused(r.combine(&mut one), GRADREG_ERROR_INVALID_ARGUMENT, &["grad_pointers[1]"]);
    r.cancel(&mut one).unwrap();
    assert_eq!(w, clean);
}

#[test]
fn numbers_that_are_not_finite_are_a_kind_of_their_own() {
    let mut r = make(Params::new(2));
    let (mut w, mut g) = (vec![1.0f32; 8], vec![1.0f32; 8]);
    g[3] = f32::NAN;
    let error = r
        .suggest_epsilon(&mut Buffers::flat(&mut w, &mut g).unwrap(), 0.9)
        .err()
        .unwrap();
    assert_eq!(error.status(), GRADREG_ERROR_NON_FINITE);
    assert_eq!(error.kind(), Kind::Numbers);
}

#[test]
fn lengths_of_a_batch_are_checked() {
    let mut context = Context::new().unwrap();
    let policy = Policy::preset("grpo").unwrap();
    let logp = [-1.0f32; 6];
    let batch = PolicyBatch {
        sequences: 2,
        length: 3,
        logp: &logp,
        advantages: &[1.0, -1.0],
        ..PolicyBatch::default()
    };
    let mut dlogp = [0.0f32; 6];
    let short = PolicyBatch { old_logp: Some(&logp[..5]), ..batch };
    refused(
        policy_loss(&mut context, &mut dlogp, None, &short, &policy),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["old_logp has 5 elements, expected 6"],
    );
    refused(
        policy_loss(&mut context, &mut dlogp[..5], None, &batch, &policy),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["dlogp has 5"],
    );
    // Offsets that would lead outside on the way: the library looks at each.
    let bad = [0i64, 900, 6];
    let packed = PolicyBatch { row_offsets: Some(&bad), ..batch };
    refused(
        policy_loss(&mut context, &mut dlogp, None, &packed, &policy),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["row_offsets"],
    );
    refused(
        advantages(&mut context, &[1.0; 6], 4, &Advantages::new()),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["gradreg_advantages"],
    );
    refused(
        advantages(&mut context, &[1.0; 6], 1, &Advantages::new().group(&[0; 5])),
        GRADREG_ERROR_INVALID_ARGUMENT,
        &["group has 5 elements"],
    );
}
