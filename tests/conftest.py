"""The `backend` fixture: one text of a test, run against both twins."""

import gc
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
# Most of the time goes into compiling small programs that run once: two fifths less at level 0.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# The same programs are compiled by many tests, and by both processes that share them.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


# Examples of methods that are variants of another, whose example is run by `make test`.
VARIANTS = {
    "baselines", "clipped_pseudo_gibbs", "conditional", "generalised_dreg", "gradient_quality",
    "grid_posterior", "historical_lair", "interpolated_bounds", "jackknife", "mnar_lair",
    "mnar_mwg", "multi_draw_lair", "replicas", "reweighted_wake_sleep", "scheduled_lair",
    "streaming_lair",
}  # fmt: skip

# Tests that take JAX long to compile. `make test` runs them in Pyro, `make test-slow` in NumPyro:
# no file is left to the latter alone.
IN_PYRO_FIRST = {
    "test_a_learning_rate_for_each_net", "test_a_masked_encoder_trains_and_samples",
    "test_a_row_with_nothing_observed_is_a_prior_draw", "test_a_runaway_is_stopped_and_reported",
    "test_a_state_can_be_gone_on_from_twice", "test_any_kernel_starts_from_anothers_last_state",
    "test_bad_guides_are_accepted_less_often", "test_callables_without_a_hash_are_sampled",
    "test_callables_without_a_hash_are_weighed_and_trained", "test_chains_go_on_from_it",
    "test_chains_start_from_the_guide", "test_chunks_change_nothing",
    "test_chunks_take_less_memory", "test_double_precision",
    "test_every_kind_of_objective_validates", "test_every_name_trains_on_incomplete_rows",
    "test_every_objective_runs_at_every_depth",
    "test_every_objective_trains_a_hierarchy_with_labels", "test_evidence_and_pooled_law",
    "test_evidence_under_a_prior_that_is_not_normal", "test_float64",
    "test_hybrid_on_bounded_latents_follows_quadrature",
    "test_impossible_masks_are_left_and_not_poisoned",
    "test_imputations_are_carried_from_one_training_epoch_to_the_next",
    "test_infinite_densities_leave_the_chain_finite", "test_integer_data_stay_integers",
    "test_kernels_hand_each_row_its_label", "test_kernels_run_a_chain_of_three_layers",
    "test_kernels_run_pruned_programs", "test_khat_tells_weights_without_bound",
    "test_labels_go_along_with_their_rows", "test_lair_bias_vanishes_with_the_number_of_particles",
    "test_lair_weights_of_an_exact_guide_become_constant", "test_mask_is_handed_to_those_that_ask",
    "test_masks_that_no_x_could_have_are_reported",
    "test_mechanisms_leave_the_models_arguments_alone", "test_more_particles_find_the_better_mode",
    "test_no_draw_is_outside", "test_one_row", "test_other_likelihoods_and_latents_are_exact",
    "test_output_bias_gives_the_first_pixels_the_mean_of_the_data",
    "test_own_optimisers_are_resumed_bit_by_bit", "test_own_program_and_further_arguments",
    "test_prior_resampling_forgets_and_needs_proposals", "test_pruned_programs_are_trained",
    "test_pruning_dead_units_leaves_the_likelihood", "test_recording_leaves_the_draws",
    "test_recording_leaves_the_training", "test_results_say_how_the_chains_were_warmed_up",
    "test_sampling_leaves_the_weights_as_they_were",
    "test_several_latents_arguments_masks_and_seeds",
    "test_single_functions_and_chunks_agree_with_the_shared_call",
    "test_smoothed_weights_are_those_that_are_pooled", "test_stopped_and_live_densities_are_equal",
    "test_stored_latents_belong_to_the_stored_imputations",
    "test_training_and_evidence",
    "test_the_closed_form_measures_the_distance_to_the_prior_given_labels", "test_the_dataset",
    "test_the_history_begins_with_the_draws", "test_the_hosts_svi_takes_every_objective",
    "test_the_weight_of_the_divergence_changes_the_objective", "test_warm_start",
    "test_what_is_kept_and_refused", "test_what_is_stored_does_not_change_the_draws",
    "test_zero_density_of_missing_values_does_not_matter",
    "test_training_goes_on_where_particles_have_no_weight",
    "test_what_the_model_masks_is_not_trained_on", "test_counts_stay_counts",
    "test_labels_of_some_rows_are_trained_on",
    "test_two_runs_on_the_same_array_have_their_own_imputations",
    "test_the_hosts_subsample_statement", "test_data_without_density_are_found",
    "test_every_chain_leaves_its_start", "test_data_are_what_numpy_reads_in_them",
    "test_pseudo_gibbs_stays_where_the_guide_leaves_the_prior",
    "test_kernels_and_estimates",
    "test_the_draws_of_another_run_are_taken_as_they_are",
    "test_counts_that_do_not_fit", "test_mean_weights_and_lp_are_those_of_both_sites",
    "test_programs_of_so_many_rows_and_no_others", "test_hierarchy_is_exact",
    "test_pooled_draws_have_the_exact_law",
    "test_nuts_on_the_conditional_model_follows_the_closed_form",
    "test_estimators_give_impossible_latents_no_weight", "test_replicas_are_trainings_of_their_own",
    "test_lair_weights_estimate_the_evidence_of_data_and_mask",
    "test_hybrids_follow_the_closed_form",
    "test_more_particles_drown_the_guide_but_for_dreg",
    "test_trained_programs_are_measured_as_they_are", "test_memory_does_not_change_the_numbers",
    "test_the_law_is_given_both_sites", "test_kernels_stay_exact",
    "test_another_observed_site_counts_where_no_entry_does", "test_mar_mechanisms_change_nothing",
    "test_labels_go_with_their_rows_whatever_holds_them", "test_integers_with_a_mask",
    "test_a_population_without_any_weight_says_so", "test_pool_before_a_run_or_of_results",
    "test_pruned_model_is_that_with_the_columns_cut",
    "test_bounds_of_parts_of_the_rows_stay_below_the_evidence",
    "test_nothing_observed_has_probability_one", "test_a_registered_rule_mends_it",
    "test_settings_that_are_no_plain_functions_go_to_a_file",
    "test_observed_entries_are_bit_identical", "test_ranks_of_the_true_latent_are_uniform",
    "test_a_pair_of_functions_trains", "test_a_run_takes_the_hand_over",
    "test_warm_up_gives_every_chain_a_start_of_its_own", "test_pooled_draws_follow_the_closed_form",
    "test_lair_mean_weight_estimates_the_evidence", "test_mwg_draws_the_posterior",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Leave to `make test-slow` what `make test` shows by another example or in the other twin."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            is_slow = item.path.stem in VARIANTS
        else:
            is_slow = item.originalname in IN_PYRO_FIRST and "numpyro" in item.name
        if is_slow:
            item.add_marker(pytest.mark.slow)


class NumPyroBackend:
    """How the tests speak to the NumPyro twin; every result is numpy."""

    name = "numpyro"

    def __init__(self):
        self.api = importlib.import_module("ppl_vae.numpyro")
        self.programs = importlib.import_module("programs_numpyro")

    def array(self, value):
        import jax.numpy as jnp

        return jnp.asarray(value)

    def run(self, kernel, x, *args, seed=0, num_warmup=0, num_samples=100, num_chains=4,
            init_params=None, **kwargs):  # fmt: skip
        from jax import random

        mcmc = self.api.MCMC(
            kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(random.key(seed), x, *args, init_params=init_params, **kwargs)
        return mcmc

    def fit(self, program, x, *args, seed=0, **kwargs):
        from jax import random

        return self.api.fit(random.key(seed), program, x, *args, progress_bar=False, **kwargs)

    def draws(self, mcmc):
        return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}

    def info(self, mcmc):
        info = mcmc.get_extra_fields(group_by_chain=True)["info"]
        return {k: np.asarray(v) for k, v in info._asdict().items() if not isinstance(v, dict)}


class PyroBackend:
    """How the tests speak to the Pyro twin; every result is numpy."""

    name = "pyro"

    def __init__(self):
        import torch

        torch.set_num_threads(1)
        self.api = importlib.import_module("ppl_vae.pyro")
        self.programs = importlib.import_module("programs_pyro")

    def array(self, value):
        import torch

        return torch.as_tensor(np.asarray(value))

    def run(self, kernel, x, *args, seed=0, num_warmup=0, num_samples=100, num_chains=4,
            init_params=None, **kwargs):  # fmt: skip
        import pyro

        pyro.set_rng_seed(seed)
        mcmc = self.api.MCMC(
            kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains,
            chain_method="vectorized", disable_progbar=True,
        )  # fmt: skip
        mcmc.run(x, *args, init_params=init_params, **kwargs)
        return mcmc

    def fit(self, program, x, *args, seed=0, **kwargs):
        import pyro

        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        return self.api.fit(program, x, *args, progress_bar=False, **kwargs)

    def draws(self, mcmc):
        return {k: v.cpu().numpy() for k, v in mcmc.get_samples(group_by_chain=True).items()}

    def info(self, mcmc):
        info = mcmc.get_extra_fields(group_by_chain=True)["info"]
        return {k: v.cpu().numpy() for k, v in info._asdict().items() if not isinstance(v, dict)}


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """A process that keeps thousands of compiled programs gets two times slower."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(params=["numpyro", "pyro"], scope="session")
def backend(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return {"numpyro": NumPyroBackend, "pyro": PyroBackend}[request.param]()
