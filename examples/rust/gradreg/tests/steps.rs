//! Steps, handles and callbacks.

use gradreg::sys::*;
use gradreg::*;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

/// L = 1/2 sum c_i w_i^2 over two layers of four weights.
struct Quadratic {
    weights: Vec<f32>,
    grads: Vec<f32>,
    passes: u32,
    fails_at: u32,
    panics_at: u32,
    moved: bool,
}

#[derive(Debug)]
enum Failure {
    Library(Error),
    Worker,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Library(error)
    }
}

const CLEAN: [f32; 8] = [1.0, -2.0, 3.0, 0.5, -1.0, 2.0, 0.25, 4.0];

impl Quadratic {
    fn new() -> Quadratic {
        Quadratic {
            weights: CLEAN.to_vec(),
            grads: vec![0.0; 8],
            passes: 0,
            fails_at: 0,
            panics_at: 0,
            moved: false,
        }
    }

    fn gradient(&mut self) -> f32 {
        let mut loss = 0.0;
        for i in 0..8 {
            let c = (i + 1) as f32 * 0.25;
            self.grads[i] = c * self.weights[i];
            loss += 0.5 * c * self.weights[i] * self.weights[i];
        }
        loss
    }
}

impl Trainer for Quadratic {
    type Error = Failure;

    fn backward(&mut self) -> std::result::Result<f32, Failure> {
        self.passes += 1;
        self.moved |= self.weights != CLEAN;
        if self.passes == self.fails_at {
            return Err(Failure::Worker);
        }
        if self.passes == self.panics_at {
            panic!("the worker panicked");
        }
        Ok(self.gradient())
    }

    fn buffers(&mut self) -> Result<Buffers<'_>> {
        Buffers::flat(&mut self.weights, &mut self.grads)
    }
}

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

#[test]
fn a_step_gives_g_plus_lambda_m_h_g() {
    let mut params = Params::new(2); // m = 1/2 and 1
    params.strength = 0.1;
    params.clip_first = 0.0;
    params.clip_second = 0.0;
    let mut r = make(params);
    let mut q = Quadratic::new();
    r.step(&mut q).unwrap();
    assert_eq!(q.weights, CLEAN);
    for i in 0..8 {
        let c = (i + 1) as f32 * 0.25;
        let m = if i < 4 { 0.5 } else { 1.0 };
        let want = c * CLEAN[i] + 0.1 * m * c * c * CLEAN[i];
        assert!((q.grads[i] - want).abs() < 2e-3 * want.abs(), "{}: {}", i, q.grads[i]);
    }
    let report = r.terms().unwrap();
    assert_eq!((report.total.step, report.layers.len()), (1, 2));
    assert!((report.total.first_order_ratio - 1.0).abs() < 0.01);
    assert!(report.total.applied_cosine > 0.99);
}

/// The safe calls and the C calls, bit for bit, with noise and central differences.
#[test]
fn steps_give_the_bits_of_the_c_calls() {
    let settings = || {
        let mut params = Params::new(2);
        params.strength = 0.1;
        params.difference = GRADREG_DIFFERENCE_CENTRAL;
        params.noise.rule = GRADREG_NOISE_RELATIVE;
        params.noise.roles = GRADREG_ROLE_MLP;
        params.noise.first_layer = 0;
        params.noise.last_layer = 0;
        params
    };
    let (mut whole, mut single) = (make(settings()), make(settings()));
    let (mut a, mut b) = (Quadratic::new(), Quadratic::new());
    for _ in 0..3 {
        whole.step(&mut a).unwrap();
        single.inject_noise(&mut b.buffers().unwrap()).unwrap();
        b.gradient();
        single.perturb(&mut b.buffers().unwrap()).unwrap();
        b.gradient();
        single.mirror(&mut b.buffers().unwrap()).unwrap();
        b.gradient();
        single.combine(&mut b.buffers().unwrap()).unwrap();
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&a.grads), bits(&b.grads));
        assert_eq!(bits(&a.weights), bits(&b.weights));
        for i in 0..8 {
            a.weights[i] -= 0.1 * a.grads[i];
            b.weights[i] -= 0.1 * b.grads[i];
        }
    }
    assert_eq!(whole.terms().unwrap().total.step, 3);
}

#[test]
fn a_step_that_fails_or_panics_is_cancelled() {
    let mut r = make(Params::new(2));
    let mut q = Quadratic::new();
    q.fails_at = 2;
    match r.step(&mut q) {
        Err(Failure::Worker) => (),
        Err(Failure::Library(error)) => panic!("{}", error),
        Ok(_) => panic!("the failure was lost"),
    }
    assert!(q.moved, "the second pass must have seen moved weights");
    assert_eq!(q.weights, CLEAN);

    let mut q = Quadratic::new();
    q.panics_at = 2;
    assert!(catch_unwind(AssertUnwindSafe(|| r.step(&mut q))).is_err());
    assert!(q.moved);
    assert_eq!(q.weights, CLEAN);

    r.step(&mut Quadratic::new()).unwrap();
    assert_eq!(r.terms().unwrap().total.step, 1);
}

#[test]
fn a_regularizer_keeps_its_context_open_and_moves_to_another_thread() {
    let mut r = make(Params::new(2)); // its context is dropped in there
    let steps = std::thread::spawn(move || {
        r.step(&mut Quadratic::new()).unwrap();
        r.terms().unwrap().total.step
    });
    assert_eq!(steps.join().unwrap(), 1);
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Context>();
    send_and_sync::<Regularizer>();
    send_and_sync::<Error>();
}

#[test]
fn a_saved_state_continues_and_a_damaged_one_is_refused() {
    let (mut r, mut s) = (make(Params::new(2)), make(Params::new(2)));
    let mut q = Quadratic::new();
    for _ in 0..5 {
        r.step(&mut q).unwrap();
    }
    let mut state = r.state().unwrap();
    s.load_state(&state).unwrap();
    s.step(&mut q).unwrap();
    assert_eq!(s.terms().unwrap().total.step, 6);
    *state.last_mut().unwrap() ^= 1;
    assert_eq!(s.load_state(&state).err().unwrap().status(), GRADREG_ERROR_INVALID_ARGUMENT);
}

fn rank_of_two() -> Params {
    let mut params = Params::new(2);
    params.world = 2;
    params.parameter_count = 8;
    params
}

#[test]
fn the_words_of_all_reduce_are_in_the_error_and_its_panic_goes_on() {
    let mut r = make(rank_of_two().all_reduce(|_| Err("link down".to_string())));
    let mut q = Quadratic::new();
    q.gradient();
    let error = r.perturb(&mut q.buffers().unwrap()).err().unwrap();
    assert_eq!(error.status(), GRADREG_ERROR_COMMUNICATION);
    assert_eq!(error.kind(), Kind::Machine);
    assert!(error.to_string().ends_with("link down"), "{}", error);

    let mut r = make(rank_of_two().all_reduce(|_| panic!("in the callback")));
    let caught = catch_unwind(AssertUnwindSafe(|| r.perturb(&mut q.buffers().unwrap())));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"in the callback"));
    assert_eq!(q.weights, CLEAN);
}

#[test]
fn all_reduce_sees_the_sums_and_its_closure_may_keep_something() {
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let mut r = make(rank_of_two().all_reduce(move |values| {
        *count.lock().unwrap() += values.len();
        Ok(())
    }));
    r.step(&mut Quadratic::new()).unwrap();
    drop(r);
    assert!(*seen.lock().unwrap() > 0);
    assert_eq!(Arc::strong_count(&seen), 1, "the closure was dropped with its regularizer");
}

#[test]
fn remarks_arrive_and_a_log_that_panics_is_ignored() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&said);
    let mut context = ContextOptions::new()
        .threads(1)
        .log(GRADREG_LOG_WARNING, move |_, message| {
            kept.lock().unwrap().push(message.to_string());
            panic!("the log is full");
        })
        .open()
        .unwrap();
    let mut params = Params::new(2);
    params.clip_second = 0.0; // one clip alone is worth a remark
    Regularizer::new(&mut context, &table(), params).unwrap();
    // The panic came while the lock was held, which poisons it.
    assert!(!said.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_empty());
}

#[test]
fn scattered_tensors_scale_and_infinities() {
    let mut r = make(Params::new(2));
    let mut q = Quadratic::new();
    fn buffers(q: &mut Quadratic) -> Buffers<'_> {
        let (a, b) = q.weights.split_at_mut(4);
        let (c, d) = q.grads.split_at_mut(4);
        Buffers::scattered(vec![
            Tensor::new(a, Some(c)).unwrap(),
            Tensor::new(b, Some(d)).unwrap(),
        ])
        .grad_scale(4.0)
        .watch_infinities()
    }
    for infinite in [false, true] {
        q.gradient();
        q.grads.iter_mut().for_each(|g| *g *= 4.0);
        r.perturb(&mut buffers(&mut q)).unwrap();
        q.gradient();
        q.grads.iter_mut().for_each(|g| *g *= 4.0);
        if infinite {
            q.grads[5] = f32::INFINITY;
        }
        let mut last = buffers(&mut q);
        r.combine(&mut last).unwrap();
        assert_eq!(last.found_inf(), infinite);
        drop(last);
        assert_eq!(q.weights, CLEAN);
    }
    let total = r.terms().unwrap().total;
    assert_eq!(total.flags & GRADREG_FLAG_NON_FINITE_SECOND, GRADREG_FLAG_NON_FINITE_SECOND);
}

#[test]
fn directions_and_places_of_the_callers_own() {
    let mut params = Params::new(2);
    params.direction = GRADREG_DIRECTION_CALLER;
    params.output = GRADREG_OUTPUT_PRODUCT;
    params.placement = GRADREG_PLACEMENT_OUT_OF_PLACE;
    params.first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    let mut r = make(params);
    let mut q = Quadratic::new();
    let direction = [1.0f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0];
    let mut moved = vec![0.0f32; 8];
    q.gradient();
    let kept = q.grads.clone();
    for pass in 0..2 {
        if pass == 1 {
            for i in 0..8 {
                q.grads[i] = (i + 1) as f32 * 0.25 * moved[i];
            }
        }
        let mut buffers = Buffers::flat(&mut q.weights, &mut q.grads)
            .unwrap()
            .direction(&direction)
            .unwrap()
            .first_grads(&kept)
            .unwrap()
            .perturbed_params(&mut moved)
            .unwrap();
        if pass == 0 {
            r.perturb(&mut buffers).unwrap();
        } else {
            r.combine(&mut buffers).unwrap();
        }
    }
    assert_eq!(q.weights, CLEAN, "never moved");
    for i in 0..8 {
        let want = (i + 1) as f32 * 0.25 * direction[i];
        assert!((q.grads[i] - want).abs() < 2e-3, "H v: {} {}", q.grads[i], want);
    }
}

#[test]
fn info_and_workspace_say_what_is_held() {
    let mut context = ContextOptions::new().threads(1).open().unwrap();
    let before = context.info().unwrap();
    assert_eq!((before.backend, before.threads), (GRADREG_BACKEND_CPU, 1));
    let params = Params::new(2);
    let bytes = Regularizer::workspace_bytes(&context, &table(), &params).unwrap();
    let made = Regularizer::new(&mut context, &table(), params).unwrap();
    assert_eq!(context.info().unwrap().bytes_held - before.bytes_held, bytes as u64);
    drop(made);
    assert_eq!(context.info().unwrap().bytes_held, before.bytes_held);
    assert_eq!(version(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn losses_and_advantages() {
    let mut context = Context::new().unwrap();
    let a = advantages(&mut context, &[1.0, 0.0, 0.0, 1.0, 3.0, 3.0], 2, &Advantages::new());
    assert_eq!(a.unwrap(), [0.5, -0.5, -0.5, 0.5, 0.0, 0.0]);
    let logp = [-1.0f32, -0.5, -2.0, -0.1, -3.0, -0.7];
    let old = [-1.1f32, -0.4, -2.0, -0.3, -2.5, -0.7];
    let mut policy = Policy::preset("dapo").unwrap();
    policy.clip_low = f64::INFINITY; // nothing is clipped
    policy.clip_high = f64::INFINITY;
    let batch = PolicyBatch {
        sequences: 2,
        length: 3,
        logp: &logp,
        old_logp: Some(&old),
        mask: Some(&[1, 1, 0, 1, 1, 1]),
        advantages: &[1.0, -0.5],
        ..PolicyBatch::default()
    };
    let mut dlogp = [9.0f32; 6];
    let metrics = policy_loss(&mut context, &mut dlogp, None, &batch, &policy).unwrap();
    assert_eq!(metrics.tokens, 5);
    // -A exp(l - l') over the five tokens that count
    for i in 0..6 {
        let a = if i < 3 { 1.0 } else { -0.5 };
        let want = if i == 2 { 0.0 } else { -a * (logp[i] - old[i]).exp() / 5.0 };
        assert!((dlogp[i] - want).abs() < 1e-6, "{}: {} {}", i, dlogp[i], want);
    }
    let offsets = [0i64, 2, 6];
    let packed = PolicyBatch { row_offsets: Some(&offsets), ..batch };
    assert!(policy_loss(&mut context, &mut dlogp, None, &packed, &policy).is_ok());
}
