"""The public names of the Pyro twin, gathered."""

try:
    import pyro  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"ppl_vae.pyro needs {error.name}, which is not installed: pip install 'ppl-vae[pyro]'"
    ) from error

from ppl_vae.diagnosis import diagnose
from ppl_vae.diagnostics import summary
from ppl_vae.inference.pyro import history, resampling, weighting
from ppl_vae.inference.pyro.ac_mwg import ACMWGKernel
from ppl_vae.inference.pyro.active_units import active_units
from ppl_vae.inference.pyro.analytic_elbo import AnalyticELBO
from ppl_vae.inference.pyro.baselines import MarginalKernel, PriorResamplingKernel
from ppl_vae.inference.pyro.clipped_pseudo_gibbs import ClippedPseudoGibbsKernel
from ppl_vae.inference.pyro.conditional import ConditionalModel
from ppl_vae.inference.pyro.diagnostics import (
    Convergence,
    convergence,
    ess_bulk,
    ess_tail,
    mcse_mean,
    rhat,
)
from ppl_vae.inference.pyro.doubly_reparameterised import DReG
from ppl_vae.inference.pyro.estimators import conditional_log_likelihood, log_likelihood
from ppl_vae.inference.pyro.forward_kl import ForwardKL
from ppl_vae.inference.pyro.generalised_dreg import GDReG
from ppl_vae.inference.pyro.gradient_quality import gradient_quality
from ppl_vae.inference.pyro.grid_posterior import grid_posterior
from ppl_vae.inference.pyro.guides import annealed, tempered
from ppl_vae.inference.pyro.historical_lair import HistoricalLAIRKernel
from ppl_vae.inference.pyro.hmc_refresh import HMCRefreshKernel
from ppl_vae.inference.pyro.importance_posterior import importance_posterior
from ppl_vae.inference.pyro.importance_weighted import IWAE, IWAESTL, NormalisedIWAE
from ppl_vae.inference.pyro.interpolated_bounds import CIWAE, Renyi
from ppl_vae.inference.pyro.jackknife import JVI
from ppl_vae.inference.pyro.lair import LAIRKernel
from ppl_vae.inference.pyro.likelihood import register_rule
from ppl_vae.inference.pyro.map_start import map_start
from ppl_vae.inference.pyro.missingness import logistic_missingness, pattern_missingness
from ppl_vae.inference.pyro.mnar_lair import MNARLAIRKernel
from ppl_vae.inference.pyro.mnar_mwg import MNARMWGKernel
from ppl_vae.inference.pyro.multi_draw_lair import MultiDrawLAIRKernel
from ppl_vae.inference.pyro.mwg import MWGKernel
from ppl_vae.inference.pyro.objectives import ELBO, STL, Objective
from ppl_vae.inference.pyro.optimisers import preset_optimizer
from ppl_vae.inference.pyro.pooling import pool
from ppl_vae.inference.pyro.pruning import prune
from ppl_vae.inference.pyro.pseudo_gibbs import PseudoGibbsKernel
from ppl_vae.inference.pyro.replicas import fit_replicas
from ppl_vae.inference.pyro.reweighted_wake_sleep import RWS, RWSDReG
from ppl_vae.inference.pyro.run import MCMC
from ppl_vae.inference.pyro.scheduled_lair import ScheduledLAIRKernel
from ppl_vae.inference.pyro.site_divergences import kl_per_site
from ppl_vae.inference.pyro.streaming_lair import StreamingLAIRKernel
from ppl_vae.inference.pyro.svi import Fitted, fit
from ppl_vae.inference.pyro.transforms import dynamic_binarisation
from ppl_vae.inference_data import completed, to_inference_data
from ppl_vae.models.pyro.conditional_vae import ConditionalVAE
from ppl_vae.models.pyro.files import load
from ppl_vae.models.pyro.hierarchical import HierarchicalVAE
from ppl_vae.models.pyro.networks import masked_encoder
from ppl_vae.models.pyro.vae import VAE

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
