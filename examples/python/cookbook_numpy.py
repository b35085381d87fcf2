#!/usr/bin/env python3
"""The recipes of docs/python.md for NumPy, on a model whose gradient is known."""
import numpy as np

import gradreg


def flat_buffer(names_and_counts, gradient_of, theta):
    # [flat]
    segments = gradreg.flat_table(names_and_counts)     # [("layers.0.mlp.up_proj.weight", 1024), ...]
    with gradreg.Regularizer(segments, layer_count=4, strength=0.1, epsilon=0.05) as regularizer:
        grads = gradient_of(theta)
        regularizer.perturb(theta, grads)               # theta is moved in place
        grads[:] = gradient_of(theta)
        regularizer.combine(theta, grads)               # grads regularized, theta as it was
    # [end]
    return grads


def hessian_product(segments, gradient_of, theta, vector):
    # [product]
    with gradreg.Regularizer(segments, layer_count=4, output="product", direction="caller",
                             difference="central", epsilon=1e-2, perturbed_roles=63,
                             schedule=gradreg.Schedule(outside_multiplier=1)) as operator:
        product = np.zeros_like(theta)
        operator.perturb(theta, product, direction=vector)
        product[:] = gradient_of(theta)
        operator.mirror(theta, product, direction=vector)
        product[:] = gradient_of(theta)
        operator.combine(theta, product, direction=vector)
    # [end]
    return product


def loss_and_advantages(logp, old_logp, mask, rewards):
    # [loss]
    advantages = gradreg.advantages(rewards, group_size=4, scale="group_std")
    policy = gradreg.Policy("dapo", clip_high=0.28)
    out = gradreg.policy_loss(policy, logp, advantages, old_logp=old_logp, mask=mask)
    print(out.loss, out.metrics.clip_high_fraction)     # out.dlogp: gradient, laid out like logp
    # [end]
    return out


def schedules():
    # [schedule]
    print(gradreg.Schedule.for_depth(36).multipliers(36))           # the article's: 0 before layer 6
    print(gradreg.Schedule("cosine", first_layer=2, full_layer=8).multipliers(12))
    # [end]


def main():
    random = np.random.default_rng(0)
    names = [(f"layers.{layer}.{part}.weight", 64) for layer in range(4)
             for part in ("self_attn.q_proj", "mlp.up_proj")]
    half = random.standard_normal((512, 512)) / 512 ** 0.5
    hessian, theta = half @ half.T, random.standard_normal(512).astype(np.float32)
    gradient_of = lambda at: (hessian @ at.astype(float)).astype(np.float32)
    before = theta.copy()
    grads = flat_buffer(names, gradient_of, theta)
    assert np.array_equal(theta, before) and not np.array_equal(grads, gradient_of(theta))
    vector = random.standard_normal(512).astype(np.float32)
    product = hessian_product(gradreg.flat_table(names), gradient_of, theta, vector)
    np.testing.assert_allclose(product, hessian @ vector, rtol=1e-3, atol=1e-2)
    logp = -random.random((8, 6), np.float32)
    out = loss_and_advantages(logp, logp - 0.1, np.ones((8, 6), bool), random.random(8))
    assert out.dlogp.shape == (8, 6)
    schedules()
    print("ok")


if __name__ == "__main__":
    main()
