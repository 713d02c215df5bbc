"""How the experiments on real data sample: each method from where its warm-up ended, in Pyro."""

from functools import cache

import pyro

from ppl_vae import pyro as api


def sampler(model, guide, x, preset, seed, *, num_draws=None, num_slots):
    """Return `sample(name, method, seed)`, which runs a `Method` and returns InferenceData.

    The last `num_draws` iterations are kept, by default all; LAIR's slots are pooled.
    """

    def run(kernel, seed, num_iterations, num_draws, start=None):
        mcmc = api.MCMC(
            kernel,
            num_warmup=num_iterations - num_draws,
            num_samples=num_draws,
            num_chains=preset.num_chains,
            chain_method="vectorized",
            disable_validation=True,
        )
        pyro.set_rng_seed(seed)
        mcmc.run(x, init_params=start)
        return mcmc

    @cache
    def start(name):
        build = {"LAIR": api.LAIRKernel, "pseudo-Gibbs": api.PseudoGibbsKernel}[name]
        return run(build(model, guide), seed, preset.num_warmup, 1).last_state.hand_over()

    def sample(name, method, seed):
        num_iterations = preset.num_proposals // method.proposals
        build = getattr(api, method.kernel)
        if method.kernel != "StreamingLAIRKernel":
            kernel = build(model, guide, **method.options)
            kept = num_draws or num_iterations
            mcmc = run(kernel, seed, num_iterations, kept, start(method.start))
            return api.to_inference_data(mcmc)
        kernel = build(model, guide, **method.options, num_slots=num_slots)
        mcmc = run(kernel, seed, num_iterations, 1, start(method.start))
        return api.pool(mcmc, num_slots)

    return sample
