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
