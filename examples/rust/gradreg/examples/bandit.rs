//! GRPO in Rust: a policy of three layers learns which of eight answers every question wants. The
//! whole of a trainer is here: forward, backward, sampling, loss, regularizer, optimizer.

use gradreg::sys::*;
use gradreg::{
    advantages, policy_loss, segment, Advantages, Buffers, Context, Error, Params, Policy,
    PolicyBatch, Regularizer, Result, Trainer,
};

const QUESTIONS: usize = 16;
const ANSWERS: usize = 8;
const LAYERS: usize = 3;
const WIDTH: usize = 16;
const GROUP: usize = 16;
const SQUARE: usize = WIDTH * WIDTH;
const PARAMETERS: usize = LAYERS * SQUARE + WIDTH * ANSWERS;

/// x <- tanh(W x) three times, then logits. Question q is the unit vector q.
struct Model {
    weights: Vec<f32>,
    grads: Vec<f32>,
    hidden: [[f32; WIDTH]; LAYERS + 1],
    probabilities: [f32; ANSWERS],
}

impl Model {
    fn forward(&mut self, question: usize) {
        self.hidden[0] = [0.0; WIDTH];
        self.hidden[0][question] = 4.0;
        for l in 0..LAYERS {
            for i in 0..WIDTH {
                let row = &self.weights[l * SQUARE + i * WIDTH..][..WIDTH];
                let sum: f32 = row.iter().zip(&self.hidden[l]).map(|(w, x)| w * x).sum();
                self.hidden[l + 1][i] = sum.tanh();
            }
        }
        for a in 0..ANSWERS {
            let row = &self.weights[LAYERS * SQUARE + a * WIDTH..][..WIDTH];
            let sum: f32 = row.iter().zip(&self.hidden[LAYERS]).map(|(w, x)| w * x).sum();
            self.probabilities[a] = sum.exp();
        }
        let total: f32 = self.probabilities.iter().sum();
        self.probabilities.iter_mut().for_each(|p| *p /= total);
    }

    /// Adds the gradient of dlogp * log p(answer) of the last forward.
    fn backward(&mut self, answer: usize, dlogp: f32) {
        let mut down = [0.0; WIDTH];
        for a in 0..ANSWERS {
            let d = dlogp * ((a == answer) as u8 as f32 - self.probabilities[a]);
            for j in 0..WIDTH {
                let at = LAYERS * SQUARE + a * WIDTH + j;
                self.grads[at] += d * self.hidden[LAYERS][j];
                down[j] += d * self.weights[at];
            }
        }
        for l in (0..LAYERS).rev() {
            let mut next = [0.0; WIDTH];
            for i in 0..WIDTH {
                let up = down[i] * (1.0 - self.hidden[l + 1][i] * self.hidden[l + 1][i]);
                for j in 0..WIDTH {
                    let at = l * SQUARE + i * WIDTH + j;
                    next[j] += up * self.weights[at];
                    self.grads[at] += up * self.hidden[l][j];
                }
            }
            down = next;
        }
    }
}

/// Numbers in [0, 1).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// What was sampled, with the log-probs at the weights that sampled it.
#[derive(Default)]
struct Rollouts {
    question: Vec<usize>,
    answer: Vec<usize>,
    rewards: Vec<f32>,
    old_logp: Vec<f32>,
    advantages: Vec<f32>,
}

fn sample(model: &mut Model, random: &mut Random) -> Rollouts {
    let mut out = Rollouts::default();
    for question in 0..QUESTIONS {
        model.forward(question);
        for _ in 0..GROUP {
            let mut left = random.next();
            let drawn = model.probabilities.iter().position(|&p| {
                left -= p;
                left < 0.0
            });
            let answer = drawn.unwrap_or(ANSWERS - 1);
            out.question.push(question);
            out.answer.push(answer);
            out.rewards.push((answer == question * 5 % ANSWERS) as u8 as f32);
            out.old_logp.push(model.probabilities[answer].ln());
        }
    }
    out
}

// [trainer]
struct Run {
    model: Model,
    rollouts: Rollouts,
    policy: Policy,
    losses: Context,
}

impl Trainer for Run {
    type Error = Error;

    fn buffers(&mut self) -> Result<Buffers<'_>> {
        Buffers::flat(&mut self.model.weights, &mut self.model.grads)
    }

    /// The loss at the weights as they are, and its gradient.
    fn backward(&mut self) -> Result<f32> {
        let rows = self.rollouts.question.len();
        let (mut logp, mut dlogp) = (vec![0.0; rows], vec![0.0; rows]);
        for i in 0..rows {
            self.model.forward(self.rollouts.question[i]);
            logp[i] = self.model.probabilities[self.rollouts.answer[i]].ln();
        }
        let batch = PolicyBatch {
            sequences: rows,
            length: 1,
            logp: &logp,
            old_logp: Some(&self.rollouts.old_logp),
            advantages: &self.rollouts.advantages,
            ..PolicyBatch::default()
        };
        let metrics = policy_loss(&mut self.losses, &mut dlogp, None, &batch, &self.policy)?;
        self.model.grads.iter_mut().for_each(|g| *g = 0.0);
        for i in 0..rows {
            self.model.forward(self.rollouts.question[i]);
            self.model.backward(self.rollouts.answer[i], dlogp[i]);
        }
        Ok(metrics.loss as f32)
    }
}
// [end]

// [regularizer]
fn make_regularizer(context: &mut Context) -> Result<Regularizer> {
    let mut table = Vec::new();
    for l in 0..LAYERS {
        let name = format!("model.layers.{}.mlp.up_proj.weight", l);
        table.push(segment(&name, (l * SQUARE) as u64, SQUARE as u64)?);
    }
    table.push(segment("lm_head.weight", (LAYERS * SQUARE) as u64, (WIDTH * ANSWERS) as u64)?);

    let mut params = Params::new(LAYERS as i32);
    params.strength = 0.05;
    params.epsilon = 1e-2;
    params.second_gradient = GRADREG_SECOND_GRADIENT_OVERWRITES;
    Regularizer::new(context, &table, params)
}
// [end]

fn train() -> Result<f32> {
    let mut random = Random(7);
    let mut regularizer = make_regularizer(&mut Context::new()?)?;
    let mut run = Run {
        model: Model {
            weights: (0..PARAMETERS).map(|_| 0.8 * random.next() - 0.4).collect(),
            grads: vec![0.0; PARAMETERS],
            hidden: [[0.0; WIDTH]; LAYERS + 1],
            probabilities: [0.0; ANSWERS],
        },
        rollouts: Rollouts::default(),
        policy: Policy::preset("dr_grpo")?,
        losses: Context::new()?,
    };
    let mut reward = 0.0;
    for step in 0..=100 {
        // [step]
        let mut rollouts = sample(&mut run.model, &mut random);
        rollouts.advantages =
            advantages(&mut run.losses, &rollouts.rewards, GROUP, &Advantages::new())?;
        run.rollouts = rollouts;
        regularizer.step(&mut run)?;
        for (w, g) in run.model.weights.iter_mut().zip(&run.model.grads) {
            *w -= 0.5 * g; // the optimizer
        }
        // [end]
        let rewards = &run.rollouts.rewards;
        reward = rewards.iter().sum::<f32>() / rewards.len() as f32;
        if step % 20 == 0 {
            let total = regularizer.terms()?.total;
            println!(
                "step {:3}  reward {:.2}  |g| {:.3}  share of the correction {:.3}  \
                 step as meant {:.3}",
                step, reward, total.first_norm, total.correction_share, total.applied_cosine
            );
        }
    }
    Ok(reward)
}

fn main() {
    match train() {
        Ok(reward) => std::process::exit((reward < 0.7) as i32),
        Err(error) => {
            eprintln!("{}: {}", error.status_name(), error);
            std::process::exit(1);
        }
    }
}
