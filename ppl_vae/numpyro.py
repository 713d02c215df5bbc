"""The public names of the NumPyro twin, gathered."""

try:
    import jax  # noqa: F401
    import numpyro  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"ppl_vae.numpyro needs {error.name}, which is not installed: "
        "pip install 'ppl-vae[numpyro]'"
    ) from error

from numpyro.infer import MCMC

from ppl_vae.diagnosis import diagnose
from ppl_vae.diagnostics import summary
from ppl_vae.inference.numpyro import history, resampling, weighting
from ppl_vae.inference.numpyro.ac_mwg import ACMWGKernel
from ppl_vae.inference.numpyro.active_units import active_units
from ppl_vae.inference.numpyro.analytic_elbo import AnalyticELBO
from ppl_vae.inference.numpyro.baselines import MarginalKernel, PriorResamplingKernel
from ppl_vae.inference.numpyro.clipped_pseudo_gibbs import ClippedPseudoGibbsKernel
from ppl_vae.inference.numpyro.conditional import ConditionalModel
from ppl_vae.inference.numpyro.diagnostics import (
    Convergence,
    convergence,
    ess_bulk,
    ess_tail,
    mcse_mean,
    rhat,
)
from ppl_vae.inference.numpyro.doubly_reparameterised import DReG
from ppl_vae.inference.numpyro.estimators import conditional_log_likelihood, log_likelihood
from ppl_vae.inference.numpyro.forward_kl import ForwardKL
from ppl_vae.inference.numpyro.generalised_dreg import GDReG
from ppl_vae.inference.numpyro.gradient_quality import gradient_quality
from ppl_vae.inference.numpyro.grid_posterior import grid_posterior
from ppl_vae.inference.numpyro.guides import annealed, tempered
from ppl_vae.inference.numpyro.historical_lair import HistoricalLAIRKernel
from ppl_vae.inference.numpyro.hmc_refresh import HMCRefreshKernel
from ppl_vae.inference.numpyro.importance_posterior import importance_posterior
from ppl_vae.inference.numpyro.importance_weighted import IWAE, IWAESTL, NormalisedIWAE
from ppl_vae.inference.numpyro.interpolated_bounds import CIWAE, Renyi
from ppl_vae.inference.numpyro.jackknife import JVI
from ppl_vae.inference.numpyro.lair import LAIRKernel
from ppl_vae.inference.numpyro.likelihood import register_rule
from ppl_vae.inference.numpyro.map_start import map_start
from ppl_vae.inference.numpyro.missingness import logistic_missingness, pattern_missingness
from ppl_vae.inference.numpyro.mnar_lair import MNARLAIRKernel
from ppl_vae.inference.numpyro.mnar_mwg import MNARMWGKernel
from ppl_vae.inference.numpyro.multi_draw_lair import MultiDrawLAIRKernel
from ppl_vae.inference.numpyro.mwg import MWGKernel
from ppl_vae.inference.numpyro.objectives import ELBO, STL, Objective
from ppl_vae.inference.numpyro.optimisers import preset_optimizer
from ppl_vae.inference.numpyro.pooling import pool
from ppl_vae.inference.numpyro.pruning import prune
from ppl_vae.inference.numpyro.pseudo_gibbs import PseudoGibbsKernel
from ppl_vae.inference.numpyro.replicas import fit_replicas
from ppl_vae.inference.numpyro.reweighted_wake_sleep import RWS, RWSDReG
from ppl_vae.inference.numpyro.scheduled_lair import ScheduledLAIRKernel
from ppl_vae.inference.numpyro.site_divergences import kl_per_site
from ppl_vae.inference.numpyro.streaming_lair import StreamingLAIRKernel
from ppl_vae.inference.numpyro.svi import Fitted, fit
from ppl_vae.inference.numpyro.transforms import dynamic_binarisation
from ppl_vae.inference_data import completed, to_inference_data
from ppl_vae.models.numpyro.conditional_vae import ConditionalVAE
from ppl_vae.models.numpyro.files import load
from ppl_vae.models.numpyro.hierarchical import HierarchicalVAE
from ppl_vae.models.numpyro.networks import masked_encoder
from ppl_vae.models.numpyro.vae import VAE

__all__ = [
    "CIWAE",
    "ELBO",
    "IWAE",
    "IWAESTL",
    "JVI",
    "MCMC",
    "RWS",
    "STL",
    "VAE",
    "ACMWGKernel",
    "AnalyticELBO",
    "ClippedPseudoGibbsKernel",
    "ConditionalModel",
    "ConditionalVAE",
    "Convergence",
    "DReG",
    "Fitted",
    "ForwardKL",
    "GDReG",
    "HMCRefreshKernel",
    "HierarchicalVAE",
    "HistoricalLAIRKernel",
    "LAIRKernel",
    "MNARLAIRKernel",
    "MNARMWGKernel",
    "MWGKernel",
    "MarginalKernel",
    "MultiDrawLAIRKernel",
    "NormalisedIWAE",
    "Objective",
    "PriorResamplingKernel",
    "PseudoGibbsKernel",
    "RWSDReG",
    "Renyi",
    "ScheduledLAIRKernel",
    "StreamingLAIRKernel",
    "active_units",
    "annealed",
    "completed",
    "conditional_log_likelihood",
    "convergence",
    "diagnose",
    "dynamic_binarisation",
    "ess_bulk",
    "ess_tail",
    "fit",
    "fit_replicas",
    "gradient_quality",
    "grid_posterior",
    "history",
    "importance_posterior",
    "kl_per_site",
    "load",
    "log_likelihood",
    "logistic_missingness",
    "map_start",
    "masked_encoder",
    "mcse_mean",
    "pattern_missingness",
    "pool",
    "preset_optimizer",
    "prune",
    "register_rule",
    "resampling",
    "rhat",
    "summary",
    "tempered",
    "to_inference_data",
    "weighting",
]
