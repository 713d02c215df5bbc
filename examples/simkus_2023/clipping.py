"""What a guide sees, kept near the data."""


def doubled_range(x):
    """Bounds of each entry: the range of the rows x, doubled about its middle.

    A guide that is fed its own extrapolations can send pseudo-Gibbs to infinity: the paper clips
    what pseudo-Gibbs draws to such a range. The other methods are right for any guide.
    """
    low, high = x.min(0), x.max(0)
    return low - (high - low) / 2, high + (high - low) / 2
