/* bandit.cpp - GRPO in C++17: a policy of three layers learns which of eight answers every question
 * wants. The whole of a trainer is here: forward, backward, sampling, loss, regularizer, optimizer. */
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "gradreg.hpp"

namespace
{

constexpr std::size_t QUESTIONS = 16, ANSWERS = 8, LAYERS = 3, WIDTH = 16, GROUP = 16;
constexpr std::size_t SQUARE = WIDTH * WIDTH, PARAMETERS = LAYERS * SQUARE + WIDTH * ANSWERS;

/* x <- tanh(W x) three times, then logits. Question q is the unit vector q. */
struct model {
    std::vector<float> weights = std::vector<float>(PARAMETERS);
    std::vector<float> grads = std::vector<float>(PARAMETERS);
    float hidden[LAYERS + 1][WIDTH] = {};
    float probabilities[ANSWERS] = {};

    void forward(std::size_t question)
    {
        for (std::size_t i = 0; i < WIDTH; i++)
            hidden[0][i] = i == question ? 4.0f : 0.0f;
        for (std::size_t l = 0; l < LAYERS; l++)
            for (std::size_t i = 0; i < WIDTH; i++) {
                float sum = 0;
                for (std::size_t j = 0; j < WIDTH; j++)
                    sum += weights[l * SQUARE + i * WIDTH + j] * hidden[l][j];
                hidden[l + 1][i] = std::tanh(sum);
            }
        float total = 0;
        for (std::size_t a = 0; a < ANSWERS; a++) {
            float sum = 0;
            for (std::size_t j = 0; j < WIDTH; j++)
                sum += weights[LAYERS * SQUARE + a * WIDTH + j] * hidden[LAYERS][j];
            probabilities[a] = std::exp(sum);
            total += probabilities[a];
        }
        for (float &p : probabilities)
            p /= total;
    }

    /* Adds the gradient of dlogp * log p(answer) of the last forward. */
    void backward(std::size_t answer, float dlogp)
    {
        float down[WIDTH] = {}, up[WIDTH];
        for (std::size_t a = 0; a < ANSWERS; a++) {
            const float d = dlogp * ((a == answer) - probabilities[a]);
            for (std::size_t j = 0; j < WIDTH; j++) {
                grads[LAYERS * SQUARE + a * WIDTH + j] += d * hidden[LAYERS][j];
                down[j] += d * weights[LAYERS * SQUARE + a * WIDTH + j];
            }
        }
        for (std::size_t l = LAYERS; l-- > 0;) {
            for (std::size_t i = 0; i < WIDTH; i++)
                up[i] = down[i] * (1 - hidden[l + 1][i] * hidden[l + 1][i]);
            for (std::size_t j = 0; j < WIDTH; j++) {
                down[j] = 0;
                for (std::size_t i = 0; i < WIDTH; i++) {
                    down[j] += up[i] * weights[l * SQUARE + i * WIDTH + j];
                    grads[l * SQUARE + i * WIDTH + j] += up[i] * hidden[l][j];
                }
            }
        }
    }
};

/* What was sampled, with the log-probs at the weights that sampled it. */
struct rollouts {
    std::vector<std::size_t> question, answer;
    std::vector<float> rewards, old_logp, advantages;
};

rollouts sample(model &m, std::mt19937 &random)
{
    rollouts out;
    for (std::size_t q = 0; q < QUESTIONS; q++) {
        m.forward(q);
        std::discrete_distribution<std::size_t> choice(m.probabilities,
                                                       m.probabilities + ANSWERS);
        for (std::size_t i = 0; i < GROUP; i++) {
            out.question.push_back(q);
            out.answer.push_back(choice(random));
            out.rewards.push_back(out.answer.back() == q * 5 % ANSWERS ? 1.0f : 0.0f);
            out.old_logp.push_back(std::log(m.probabilities[out.answer.back()]));
        }
    }
    return out;
}

/* The loss at the weights as they are, and its gradient into m.grads. */
float backward(model &m, const gradreg::context &context, const rollouts &r,
               const gradreg_policy &policy)
{
    const std::size_t rows = r.question.size();
    std::vector<float> logp(rows), dlogp(rows);
    for (std::size_t i = 0; i < rows; i++) {
        m.forward(r.question[i]);
        logp[i] = std::log(m.probabilities[r.answer[i]]);
    }
    gradreg::policy_batch batch;
    batch.sequences = rows;
    batch.length = 1;
    batch.logp = logp;
    batch.old_logp = r.old_logp;
    batch.advantages = r.advantages;
    const gradreg_policy_metrics metrics = gradreg::policy_loss(context, batch, policy, dlogp);
    std::fill(m.grads.begin(), m.grads.end(), 0.0f);
    for (std::size_t i = 0; i < rows; i++) {
        m.forward(r.question[i]);
        m.backward(r.answer[i], dlogp[i]);
    }
    return static_cast<float>(metrics.loss);
}

/* [regularizer] */
gradreg::regularizer make_regularizer(const gradreg::context &context)
{
    std::vector<gradreg_segment> table;
    for (std::size_t l = 0; l < LAYERS; l++)
        table.push_back(gradreg::segment(
            "model.layers." + std::to_string(l) + ".mlp.up_proj.weight", l * SQUARE, SQUARE));
    table.push_back(gradreg::segment("lm_head.weight", LAYERS * SQUARE, WIDTH * ANSWERS));

    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = LAYERS;
    params.strength = 0.05;
    params.epsilon = 1e-2;
    return gradreg::regularizer(context, table, params);
}
/* [end] */

int train()
{
    model m;
    std::mt19937 random(7);
    std::uniform_real_distribution<float> start(-0.4f, 0.4f);
    for (float &w : m.weights)
        w = start(random);

    gradreg::context context;
    gradreg::regularizer regularizer = make_regularizer(context);
    const gradreg_policy policy = gradreg::policy_preset("dr_grpo");

    float reward = 0;
    for (int step = 0; step <= 100; step++) {
        /* [step] */
        rollouts r = sample(m, random);
        r.advantages = gradreg::advantages(context, r.rewards, GROUP);
        auto buffers = gradreg::buffers::flat(m.weights, m.grads);
        gradreg::regularize(regularizer, buffers,
                            [&] { return backward(m, context, r, policy); });
        for (std::size_t i = 0; i < PARAMETERS; i++)
            m.weights[i] -= 0.5f * m.grads[i]; /* the optimizer */
        /* [end] */
        reward = 0;
        for (float one : r.rewards)
            reward += one / static_cast<float>(r.rewards.size());
        if (step % 20 == 0) {
            const gradreg_terms total = regularizer.terms().total;
            std::printf("step %3d  reward %.2f  |g| %.3f  share of the correction %.3f  "
                        "step as meant %.3f\n",
                        step, static_cast<double>(reward), total.first_norm,
                        total.correction_share, total.applied_cosine);
        }
    }
    return reward > 0.7f ? 0 : 1;
}

} // namespace

int main()
{
    try {
        return train();
    } catch (const gradreg::error &e) {
        std::fprintf(stderr, "%s: %s\n", e.status_name(), e.what());
        return 1;
    }
}
