"""One or two normal latents a row, in the words of both twins, and their bounds by quadrature."""

from dataclasses import dataclass

import numpy as np
from host_words import words
from kernel_parts import real
from scipy import stats

BIAS = np.array([0.5, -1.0, 0.3])
NOISE = 0.8  # of x given the last latent
LINK = 0.7  # of the second latent to the first


@dataclass(frozen=True, eq=False)
class Chain:
    """z_1 ~ N(0, 1), (z_2 ~ N(LINK z_1, 1)), x ~ N(weight z_last + BIAS, NOISE^2)."""

    parameters: dict[str, np.ndarray]

    @property
    def num_sites(self):
        return 2 if "link" in self.parameters else 1

    def on(self, backend):
        """The parameters as arrays of the twin."""
        return {name: real(backend, value) for name, value in self.parameters.items()}

    def pair(self, backend):
        """The program as (model, guide), its parameters those of the host."""
        ppl, first = words(backend), self.on(backend)
        names = ["z1", "z2"][: self.num_sites]

        def param(name):
            return ppl.param(name, first[name] + 0.0)  # a copy: Pyro's share the memory

        def model(x):
            weight = param("weight")
            with ppl.plate("rows", x.shape[0]):
                z = ppl.sample("z1", ppl.dist.Normal(0 * x[:, 0], 1.0))
                if "z2" in names:
                    z = ppl.sample("z2", ppl.dist.Normal(LINK * z, 1.0))
                loc = z[..., None] * weight + real(backend, BIAS)
                ppl.sample("x", ppl.dist.Normal(loc, NOISE).to_event(1), obs=x)

        def guide(x):
            loc = x @ param("gain") + param("shift")
            with ppl.plate("rows", x.shape[0]):
                z = ppl.sample("z1", ppl.dist.Normal(loc, param("scale") + 0 * loc))
                if "z2" in names:
                    loc = param("link") * z + x @ param("gain2") + param("shift2")
                    ppl.sample("z2", ppl.dist.Normal(loc, param("scale2") + 0 * loc))

        return model, guide

    def log_weights(self, x, mask, kl_weight, num_nodes):
        """Log weights of a row at the nodes (B, nodes^sites), and the nodes' weights."""
        p = self.parameters
        nodes, shares = np.polynomial.hermite_e.hermegauss(num_nodes)
        shares = shares / shares.sum()
        x = np.where(mask, x, 0.0)
        loc = (x @ p["gain"] + p["shift"])[:, None]
        z = loc + p["scale"] * nodes
        log_ratio = stats.norm.logpdf(z) - stats.norm.logpdf(z, loc, p["scale"])
        if self.num_sites == 2:
            z1, e2 = np.repeat(z, num_nodes, 1), np.tile(nodes, num_nodes)
            loc = p["link"] * z1 + (x @ p["gain2"] + p["shift2"])[:, None]
            z = loc + p["scale2"] * e2
            log_ratio = np.repeat(log_ratio, num_nodes, 1)
            log_ratio = log_ratio + stats.norm.logpdf(z, LINK * z1)
            log_ratio = log_ratio - stats.norm.logpdf(z, loc, p["scale2"])
            shares = np.repeat(shares, num_nodes) * np.tile(shares, num_nodes)
        log_x = stats.norm.logpdf(x[:, None], z[..., None] * p["weight"] + BIAS, NOISE)
        return np.where(mask[:, None], log_x, 0.0).sum(-1) + kl_weight * log_ratio, shares

    def bound(self, x, mask, num_particles=1, kl_weight=1.0, num_nodes=None):
        """The expected bound of one or two particles, summed over rows."""
        num_nodes = num_nodes or {1: 40, 2: 14}[self.num_sites]
        log_weight, shares = self.log_weights(x, mask, kl_weight, num_nodes)
        if num_particles == 1:
            return float((log_weight @ shares).sum())
        pairs = np.logaddexp(log_weight[:, :, None], log_weight[:, None]) - np.log(2)
        return float((pairs @ shares @ shares).sum())

    def gradient(self, x, mask, **options):
        """The gradient of `bound`, one long vector in the order of `flat`.

        One particle is exact to 1e-8, two to some 0.001 a row: the nodes see a kink.
        """
        start = flat(self.parameters)
        columns = np.eye(len(start)) * 1e-5
        ends = [
            [self.at(start + sign * step).bound(x, mask, **options) for sign in (1, -1)]
            for step in columns
        ]
        return np.array([(up - down) / 2e-5 for up, down in ends])

    def at(self, vector):
        """The chain with other parameters, given in the order of `flat`."""
        out, begin = {}, 0
        for name in sorted(self.parameters):
            shape = np.shape(self.parameters[name])
            end = begin + int(np.prod(shape))
            out[name] = vector[begin:end].reshape(shape)
            begin = end
        return Chain(out)

    def with_exact_guide(self):
        """The same model with q(z | x) = p(z | x) for complete rows."""
        w, p = self.parameters["weight"], dict(self.parameters)
        if self.num_sites == 1:
            p.update(regression(w, NOISE**2 * np.eye(len(w))))
            return Chain(p)
        p.update(regression(LINK * w, np.outer(w, w) + NOISE**2 * np.eye(len(w))))
        second = regression(w, NOISE**2 * np.eye(len(w)))
        p.update({f"{name}2": value for name, value in second.items()})
        p["link"] = LINK * second["scale"] ** 2
        return Chain(p)


def regression(weight, covariance, bias=BIAS):
    """The guide of z ~ N(0, 1) given x ~ N(weight z + bias, covariance)."""
    solved = np.linalg.solve(covariance, weight)
    variance = 1 / (1 + weight @ solved)
    gain = variance * solved
    return {"gain": gain, "shift": -gain @ bias, "scale": np.sqrt(variance)}


def flat(parameters):
    return np.concatenate([np.ravel(parameters[name]) for name in sorted(parameters)])


WEIGHT = np.array([1.0, -0.6, 0.4])
GAIN = np.array([0.3, 0.1, -0.2])
ONE = Chain({"weight": WEIGHT, "gain": GAIN, "shift": np.array(0.2), "scale": np.array(0.9)})
TWO = Chain(
    {
        **ONE.parameters,
        "link": np.array(0.4),
        "gain2": -GAIN,
        "shift2": np.array(-0.1),
        "scale2": np.array(0.7),
    }
)
