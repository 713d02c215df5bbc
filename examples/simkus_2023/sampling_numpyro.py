"""How the experiments on real data sample: each method from where its warm-up ended, in NumPyro."""

from functools import cache

from jax import random

from ppl_vae import numpyro as api


def sampler(model, guide, x, preset, seed, *, num_draws=None, num_slots):
    """Return `sample(name, method, seed)`, which runs a `Method` and returns InferenceData.

    The last `num_draws` iterations are kept, by default all; LAIR's slots are pooled.
    """

    def run(kernel, key, num_iterations, num_draws, start=None):
        mcmc = api.MCMC(
            kernel,
            num_warmup=num_iterations - num_draws,
            num_samples=num_draws,
            num_chains=preset.num_chains,
            chain_method="vectorized",
        )
        mcmc.run(key, x, init_params=start)
        return mcmc

    @cache
    def start(name):
        build = {"LAIR": api.LAIRKernel, "pseudo-Gibbs": api.PseudoGibbsKernel}[name]
        mcmc = run(build(model, guide), random.key(seed), preset.num_warmup, 1)
        return mcmc.last_state.hand_over()

    def sample(name, method, seed):
        key_run, key_pool = random.split(random.key(seed))
        num_iterations = preset.num_proposals // method.proposals
        build = getattr(api, method.kernel)
        if method.kernel != "StreamingLAIRKernel":
            kernel = build(model, guide, **method.options)
            kept = num_draws or num_iterations
            mcmc = run(kernel, key_run, num_iterations, kept, start(method.start))
            return api.to_inference_data(mcmc)
        kernel = build(model, guide, **method.options, num_slots=num_slots)
        mcmc = run(kernel, key_run, num_iterations, 1, start(method.start))
        return api.pool(key_pool, mcmc, num_slots)

    return sample
