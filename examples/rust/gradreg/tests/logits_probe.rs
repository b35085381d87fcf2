//! Log-probs, the probe and the monitors.

use gradreg::sys::*;
use gradreg::*;

const ROWS: usize = 3;
const WORDS: usize = 5;

fn logits() -> Vec<f32> {
    (0..ROWS * WORDS).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.4).collect()
}

fn log_prob(row: &[f32], target: usize) -> f64 {
    let sum: f64 = row.iter().map(|&z| (z as f64).exp()).sum();
    row[target] as f64 - sum.ln()
}

#[test]
fn log_probs_and_their_gradient_agree_with_the_formula() {
    let mut context = Context::new().unwrap();
    let (x, targets) = (logits(), [2, -1, 4]);
    let shape = LogitsShape::new(ROWS, WORDS);
    let forward = logprobs_forward(&mut context, &x, &targets, &shape).unwrap();
    assert_eq!((forward.logp[1], forward.entropy[1]), (0.0, 0.0));
    for (r, t) in [(0, 2), (2, 4)] {
        let want = log_prob(&x[r * WORDS..][..WORDS], t);
        assert!((forward.logp[r] as f64 - want).abs() < 1e-5);
    }
    let dlogp = [1.0, 5.0, -2.0];
    let mut apart = vec![9.0f32; ROWS * WORDS];
    logprobs_backward(
        &mut context, &mut apart, Some(&x), &targets, &forward, &dlogp, None, &shape,
    )
    .unwrap();
    let mut in_place = x.clone();
    logprobs_backward(&mut context, &mut in_place, None, &targets, &forward, &dlogp, None, &shape)
        .unwrap();
    assert_eq!(apart, in_place);
    assert_eq!(apart[WORDS..2 * WORDS], [0.0; WORDS]);
    for j in 0..WORDS {
        let p = log_prob(&x[..WORDS], j).exp() as f32;
        let want = (j == 2) as u8 as f32 - p;
        assert!((apart[j] - want).abs() < 1e-5);
    }
}

/// One visit of each row gives what the three calls give.
#[test]
fn a_loss_straight_from_logits_is_that_of_the_three_calls() {
    let mut context = Context::new().unwrap();
    let (x, targets) = (logits(), [2, 0, 4]);
    let shape = LogitsShape::new(ROWS, WORDS);
    let old = [-1.2f32, -1.0, -2.0];
    let policy = Policy::preset("dapo").unwrap();
    let batch = PolicyBatch {
        sequences: 1,
        length: ROWS,
        old_logp: Some(&old),
        advantages: &[1.5],
        ..PolicyBatch::default()
    };
    let mut at_once = x.clone();
    let metrics =
        policy_logits(&mut context, &mut at_once, &targets, &batch, &policy, &shape).unwrap();

    let forward = logprobs_forward(&mut context, &x, &targets, &shape).unwrap();
    let with_logp = PolicyBatch { logp: &forward.logp, ..batch };
    let mut dlogp = [0.0f32; ROWS];
    let want = policy_loss(&mut context, &mut dlogp, None, &with_logp, &policy).unwrap();
    let mut apart = x.clone();
    logprobs_backward(&mut context, &mut apart, None, &targets, &forward, &dlogp, None, &shape)
        .unwrap();
    assert!((metrics.loss - want.loss).abs() < 1e-6);
    for (a, b) in at_once.iter().zip(&apart) {
        assert!((a - b).abs() < 1e-6, "{} {}", a, b);
    }
    let refused =
        policy_logits(&mut context, &mut at_once, &targets, &with_logp, &policy, &shape);
    assert!(refused.is_err());
    let gspo = Policy::preset("gspo").unwrap();
    let refused = policy_logits(&mut context, &mut at_once, &targets, &batch, &gspo, &shape);
    assert_eq!(refused.err().unwrap().status(), GRADREG_ERROR_UNSUPPORTED);
}

/// hidden weight^T are the logits; a build without a BLAS says so.
#[test]
fn log_probs_from_hidden_states_agree_with_those_from_logits() {
    const WIDTH: usize = 2;
    let mut context = Context::new().unwrap();
    let hidden: Vec<f32> = (0..ROWS * WIDTH).map(|i| i as f32 * 0.3 - 0.7).collect();
    let weight: Vec<f32> = (0..WORDS * WIDTH).map(|i| ((i * 3 % 7) as f32 - 3.0) * 0.2).collect();
    let targets = [2, 0, 4];
    let shape = LinearShape::new(ROWS, WIDTH, WORDS);
    let linear = match linear_logprobs_forward(&mut context, &hidden, &weight, &targets, &shape) {
        Ok(linear) => linear,
        Err(error) => {
            assert_eq!(error.status(), GRADREG_ERROR_UNSUPPORTED, "{}", error);
            return;
        }
    };
    let mut x = vec![0.0f32; ROWS * WORDS];
    for (i, z) in x.iter_mut().enumerate() {
        let (r, v) = (i / WORDS, i % WORDS);
        *z = (0..WIDTH).map(|k| hidden[r * WIDTH + k] * weight[v * WIDTH + k]).sum();
    }
    let rows = LogitsShape::new(ROWS, WORDS);
    let plain = logprobs_forward(&mut context, &x, &targets, &rows).unwrap();
    let dlogp = [1.0f32, -2.0, 0.5];
    let mut dx = x.clone();
    logprobs_backward(&mut context, &mut dx, None, &targets, &plain, &dlogp, None, &rows).unwrap();
    let (mut dhidden, mut dweight) = (vec![0.0f32; ROWS * WIDTH], vec![0.0f32; WORDS * WIDTH]);
    linear_logprobs_backward(
        &mut context, &mut dhidden, &mut dweight, &hidden, &weight, &targets, &linear, &dlogp,
        None, &shape,
    )
    .unwrap();
    for r in 0..ROWS {
        assert!((linear.logp[r] - plain.logp[r]).abs() < 1e-5);
        for k in 0..WIDTH {
            let want: f32 = (0..WORDS).map(|v| dx[r * WORDS + v] * weight[v * WIDTH + k]).sum();
            assert!((dhidden[r * WIDTH + k] - want).abs() < 1e-5);
        }
    }
    for v in 0..WORDS {
        for k in 0..WIDTH {
            let want: f32 = (0..ROWS).map(|r| dx[r * WORDS + v] * hidden[r * WIDTH + k]).sum();
            assert!((dweight[v * WIDTH + k] - want).abs() < 1e-5);
        }
    }
    assert!(linear_logprobs_forward(&mut context, &hidden[1..], &weight, &targets, &shape).is_err());
}

#[test]
fn matrices_that_are_too_short_are_refused() {
    let mut context = Context::new().unwrap();
    let x = logits();
    let mut shape = LogitsShape::new(ROWS, WORDS);
    shape.row_stride = WORDS + 1;
    let error = logprobs_forward(&mut context, &x, &[0, 0, 0], &shape).err().unwrap();
    assert!(error.to_string().contains("logits has 15 elements"), "{}", error);
    let error = logprobs_forward(&mut context, &x, &[0, 5, 0], &LogitsShape::new(ROWS, WORDS))
        .err()
        .unwrap();
    assert!(error.to_string().contains("gradreg_logprobs_forward"), "{}", error);
    shape.rows = usize::MAX;
    assert!(logprobs_forward(&mut context, &x, &[], &shape).is_err());
}

#[test]
fn a_probe_moves_hidden_states_and_sums_up_what_it_saw() {
    let mut context = ContextOptions::new().threads(1).open().unwrap();
    let mut params = ProbeParams::new(2);
    assert_eq!((params.trials, params.noise_scale), (30, 0.5));
    params.trials = 4;
    let mut probe = Probe::new(&mut context, &params).unwrap();
    drop(context);
    let clean = vec![1.0f32; 4 * 8];
    let mut hidden = clean.clone();
    let rows = Rows { rows: 4, columns: 8, stride: 0 };
    probe.inject(&mut hidden, rows, 1, 0).unwrap();
    assert!(hidden.iter().zip(&clean).all(|(a, b)| a != b));
    let x = [0.0f32; 4 * WORDS];
    let words = Rows { rows: 4, columns: WORDS, stride: 0 };
    probe.observe(&x, words, 3, 1, 0).unwrap();
    let one = Rows { rows: 1, ..words };
    probe.observe(&x, one, 3, GRADREG_LAYER_NONE, 0).unwrap();
    let summary = probe.summary().unwrap();
    assert_eq!((summary.len(), summary[1].trials, summary[0].trials), (2, 4, 0));
    assert!((summary[1].mean - 0.2).abs() < 1e-12 && (summary[0].baseline - 0.2).abs() < 1e-12);
    assert!(probe.inject(&mut hidden[..31], rows, 1, 0).is_err());
    let error = probe.inject(&mut hidden, rows, 2, 0).err().unwrap();
    assert!(error.to_string().contains("gradreg_probe_inject"), "{}", error);
    probe.reset().unwrap();
    assert_eq!(probe.summary().unwrap()[1].trials, 0);
    params.trials = -1;
    assert!(Probe::new(&mut Context::new().unwrap(), &params).is_err());
}

#[test]
fn monitors_are_what_they_say() {
    let mut context = Context::new().unwrap();
    assert_eq!(distinct_ngrams(&[1, 2, 1, 2, 1], 2).unwrap(), 0.5);
    assert!(distinct_ngrams(&[1, 2], 0).is_err());
    assert_eq!(moving_average(&[1.0, 3.0, 5.0], 2).unwrap(), [1.0, 2.0, 4.0]);
    let js = js_divergence(&mut context, &[1.0, 0.0, 0.5, 0.5], &[0.0, 1.0, 1.0, 1.0], 2).unwrap();
    assert!((js[0] - std::f32::consts::LN_2).abs() < 1e-6);
    assert_eq!(js[1], 0.0);
    assert!(js_divergence(&mut context, &[1.0; 3], &[1.0; 3], 2).is_err());
    let table = [segment("lm_head.weight", 0, 2).unwrap(), segment("x", 2, 1).unwrap()];
    let moved = weight_delta(&mut context, &[0.0f32, 0.0, 1.0], &[3.0, 4.0, 1.0], &table).unwrap();
    assert_eq!(moved, [5.0, 0.0]);
    let short = weight_delta(&mut context, &[0.0f32; 2], &[0.0; 2], &table).err().unwrap();
    assert!(short.to_string().contains("segments[1] ends past the 2 elements"), "{}", short);
}
