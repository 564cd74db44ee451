"""Balanced k-means: clusters of exactly equal size (MoEfication, Zhang et al. 2022, arXiv 2110.01786, section 3.2).

Lloyd's iterations, in which rows are not sent to their nearest centre but assigned so that the sum of squared distances is least among all
assignments of n rows to k clusters with n // k or n // k + 1 rows each:

    min  sum_i |x_i - c_label(i)|^2     subject to    floor(n / k) <= |{i : label(i) = j}| <= ceil(n / k)

This is a transportation problem. It is solved exactly, not by a heuristic: rows start at `argmin_j cost + price`, which is optimal for the sizes
it happens to give; then rows move along shortest paths in the graph of the k clusters (length of a -> b: the least cost of moving one row of a to
b) from clusters that hold too many to those that hold too few, which keeps it optimal. The prices (dual variables) of one iteration start the
next, so that later iterations have few rows to move. No n x n matrix is made: memory is n x k.

MoEfication and LLaMA-MoE use the package k-means-constrained (10 starts, 300-500 iterations) for the same problem; it can take the place of
Lloyd's iterations here (`backend`). Three things are ours. The rows are put into an order of their own before anything is drawn, so that
permuting them permutes the labels and nothing else. Small problems (n <= 128) are started four times. And swaps of two rows follow (n <= 4096), until
none lowers the sum of squared distances: with few rows in many dimensions Lloyd's iterations stop after two or three, because each row has its
share in the centre it is held to; swaps, which move the centres along, lower the sum by another 4-5 % on the embedded model.
"""

from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

Backend = Literal["numpy", "constrained"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

_SMALL, _STARTS = 128, 4
"""Problems of at most that many rows are solved from that many starts, and the best is kept."""
_EXCHANGED = 4096
"""Swaps need the distance of every row to every other: they are left out above that many rows."""
_SLACK = 1e-12
"""Of the largest cost: path lengths that differ by less are equal."""


def balanced_sizes(n: int, clusters: int) -> Int[np.ndarray, " cluster"]:
    """The sizes of `clusters` parts of `n` that differ by at most one, larger ones first."""
    return np.full(clusters, n // clusters) + (np.arange(clusters) < n % clusters)


def choose_backend(backend: str | None) -> Backend:
    """The backend that will be used: the one named, by default numpy, so that labels do not depend on what else is installed.

    Raises:
        ValueError: It is none of `numpy` and `constrained`.
        ImportError: `constrained`, and k-means-constrained is not installed.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}: choose from {', '.join(BACKENDS)}, or None")
    if backend == "constrained" and find_spec("k_means_constrained") is None:
        raise ImportError(
            "backend='constrained' needs the package k-means-constrained: pip install 'mwork-lens[experts]', or take backend='numpy', "
            "which solves the same problem"
        )
    return "constrained" if backend == "constrained" else "numpy"


def balanced_kmeans(
    rows: Float[np.ndarray, "n d"],
    clusters: int,
    *,
    seed: int = 0,
    iterations: int = 50,
    backend: str | None = "numpy",
) -> Int[np.ndarray, " n"]:
    """Cluster of each row; every cluster holds n // clusters rows or one more, exactly.

    The result depends on the set of rows, not on their order, and is the same for the same seed.

    Args:
        rows: Points; scale them as the distance should see them.
        clusters: Number of clusters.
        seed: Of the starting centres (k-means++, greedy).
        iterations: Lloyd iterations, and rounds of swaps, at most; each stops when the sum of squared distances no longer falls.
        backend: As `choose_backend`.

    Raises:
        ValueError: There are more clusters than rows, less than one cluster or iteration, or a row is not finite.
        ImportError: As `choose_backend`.
    """
    require_clusters(clusters, n := len(rows))
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be at least 1")
    if len(bad := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
        raise ValueError(f"row {bad[0]} holds NaN or infinity ({len(bad)} such rows): it cannot be clustered")
    chosen = choose_backend(backend)
    order = _own_order(rows)
    ordered = np.ascontiguousarray(rows[order], dtype=np.float64)
    labels = np.empty(n, dtype=np.int64)
    rngs = [np.random.default_rng([seed, start]) for start in range(_STARTS if n <= _SMALL else 1)]
    if chosen == "constrained":
        found = [_constrained(ordered, clusters, seed, iterations)]
    else:
        found = [_lloyd(ordered, clusters, rng, iterations)[0] for rng in rngs]
    if n <= _EXCHANGED:
        found = [_exchange(ordered, start, iterations)[0] for start in found]
    labels[order] = min(found, key=lambda start: inertia(ordered, start))
    return labels


def require_clusters(clusters: int, n: int, *, name: str = "clusters", of: str = "rows") -> None:
    """Refuse a number of clusters that `n` rows cannot fill.

    Raises:
        ValueError: Less than one, or more than `n`.
    """
    if clusters < 1:
        raise ValueError(f"{name}={clusters} must be at least 1")
    if clusters > n:
        raise ValueError(f"{name}={clusters} is more than the {n} {of} there are to divide: choose at most {n}")


def inertia(rows: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]) -> float:
    """Sum of squared distances of the rows to the mean of their cluster."""
    rows = np.asarray(rows, dtype=np.float64)
    return sum(float(np.square(part - part.mean(0)).sum()) for part in (rows[labels == j] for j in np.unique(labels)))


def assign(
    cost: Float[np.ndarray, "n k"], prices: Float[np.ndarray, " k"] | None = None
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " k"]]:
    """The cheapest assignment of rows to clusters of n // k or n // k + 1 rows, and prices that make it everybody's own choice.

    Args:
        cost: Of putting a row into a cluster.
        prices: Where to begin; good ones (of a similar problem) save work and do not change the cost of the result.

    Returns:
        Labels, and prices with `labels[i] in argmin_j cost[i, j] + prices[j]`.
    """
    n, k = cost.shape
    floor, top = n // k, -(-n // k)
    slack = _SLACK * (1 + float(np.abs(cost).max()))
    labels = (cost if prices is None else cost + prices).argmin(axis=1)
    size = np.bincount(labels, minlength=k)
    length, who = np.full((k, k), np.inf), np.zeros((k, k), dtype=np.int64)

    def refresh(cluster: int) -> None:
        """Lengths of the edges out of a cluster, and which row each would move."""
        members = np.flatnonzero(labels == cluster)
        if len(members):
            step = cost[members] - cost[members, cluster, None]
            first = step.argmin(axis=0)
            length[cluster], who[cluster] = step[first, np.arange(k)], members[first]
        length[cluster, cluster if len(members) else slice(None)] = np.inf

    for cluster in range(k):
        refresh(cluster)
    while True:
        over, under = size > top, size < floor
        forced = bool(over.any() or under.any())
        limit = top if over.any() else floor
        source, sink = size > limit, under if forced and not over.any() else size < top
        distance, parent = _shortest(length, source, slack)
        goals = np.flatnonzero(sink)
        goals = goals[np.argsort(distance[goals], kind="stable")]
        if not forced:  # sizes are right; is there a cheaper choice of who has one more?
            if not len(goals) or not distance[goals[0]] < -slack:
                break
            goals = goals[:1]
        moved: set[int] = set()
        touched: set[int] = set()
        for goal in goals:  # all of them lie on shortest paths, so each may be filled as long as no row moves twice
            path = _path(parent, int(goal))
            rows = [int(who[a, b]) for a, b in path]
            start = path[0][0]
            if not source[start] or moved.intersection(rows):
                continue
            for (_, b), row in zip(path, rows, strict=True):
                labels[row] = b
            moved.update(rows)
            touched.update(node for edge in path for node in edge)
            size[start] -= 1
            size[goal] += 1
            source[start] = size[start] > limit
        for cluster in touched:
            refresh(cluster)
    return labels, -_shortest(length, np.ones(k, dtype=bool), slack)[0]


def _shortest(
    length: Float[np.ndarray, "k k"], source: Bool[np.ndarray, " k"], slack: float
) -> tuple[Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Bellman-Ford from all sources at once: distances, and the cluster before each on its path (-1 at a source)."""
    distance, parent = np.where(source, 0.0, np.inf), np.full(len(source), -1)
    active, every = np.flatnonzero(source), np.arange(len(source))
    while len(active):
        through = distance[active, None] + length[active]
        best = through.argmin(axis=0)
        found = through[best, every]
        nearer = found < distance - slack
        distance[nearer], parent[nearer] = found[nearer], active[best[nearer]]
        active = np.flatnonzero(nearer)
    return distance, parent


def _path(parent: Int[np.ndarray, " k"], goal: int) -> list[tuple[int, int]]:
    """The edges from a source to `goal`."""
    edges: list[tuple[int, int]] = []
    while (before := int(parent[goal])) >= 0:
        edges, goal = [(before, goal), *edges], before
    return edges


def _lloyd(
    rows: Float[np.ndarray, "n d"], clusters: int, rng: np.random.Generator, iterations: int
) -> tuple[Int[np.ndarray, " n"], float]:
    """Labels at the end of one start, and their sum of squared distances."""
    size = np.square(rows).sum()
    centres, prices = rows[_seeds(rows, clusters, rng)], None
    labels, best = np.zeros(len(rows), dtype=np.int64), np.inf
    for _ in range(iterations):
        made, prices = assign(np.square(centres).sum(axis=1) - 2 * (rows @ centres.T), prices)
        counts = np.bincount(made, minlength=clusters)
        order = np.argsort(made, kind="stable")
        centres = np.add.reduceat(rows[order], np.cumsum(counts) - counts, axis=0) / counts[:, None]
        now = float(size - (counts * np.square(centres).sum(axis=1)).sum())
        if now >= best - 1e-9 * size:
            break
        labels, best = made, now
    return labels, best


def _exchange(
    rows: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], rounds: int
) -> tuple[Int[np.ndarray, " n"], float]:
    """Labels after swaps of two rows that lower the sum of squared distances, means following; and how much they lowered it.

    A round ranks the best partner of every row, then swaps down the list whatever still helps.
    """
    labels, counts, every = labels.copy(), np.bincount(labels), np.arange(len(rows))
    share, squares, lowered = 1 / counts, np.square(rows).sum(axis=1), 0.0
    order = np.argsort(labels, kind="stable")
    sums = np.add.reduceat(rows[order], np.cumsum(counts) - counts, axis=0)
    apart, slack = squares[:, None] + squares - 2 * (rows @ rows.T), 1e-10 * (1e-300 + float(squares.sum()))
    for _ in range(rounds):
        near = rows @ (sums * share[:, None]).T
        own, weight, before = near[every, labels], share[labels], lowered
        partner, value = np.zeros_like(labels), np.zeros(len(rows))
        for at in range(0, len(rows), 256):
            part = slice(at, at + 256)
            gain = near[part][:, labels] + near[:, labels[part]].T - own[part, None] - own
            gain = 2 * gain + apart[part] * (weight[part, None] + weight)
            gain[labels[part, None] == labels] = 0
            partner[part], value[part] = gain.argmax(axis=1), gain.max(axis=1)
        for i in np.argsort(-value, kind="stable"):
            if value[i] <= slack:
                break
            j = partner[i]
            a, b, step = labels[i], labels[j], rows[j] - rows[i]
            length = step @ step
            now = float((length + 2 * (sums[a] @ step)) * share[a] + (length - 2 * (sums[b] @ step)) * share[b])
            if a != b and now > slack:
                labels[i], labels[j], lowered = b, a, lowered + now
                sums[a] += step
                sums[b] -= step
        if lowered == before:
            break
    return labels, lowered


def _seeds(rows: Float[np.ndarray, "n d"], clusters: int, rng: np.random.Generator) -> Int[np.ndarray, " cluster"]:
    """Greedy k-means++: each next centre is the best of a few rows drawn by their squared distance to the centres so far."""
    squares, tries = np.square(rows).sum(axis=1), 2 + int(np.log(clusters))
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.maximum(squares + squares[chosen[0]] - 2 * (rows @ rows[chosen[0]]), 0)
    nearest[chosen] = 0
    while len(chosen) < clusters:
        running = nearest.cumsum()
        if running[-1] <= _SLACK * (1 + squares.sum()):  # only copies of the centres are left
            free = np.setdiff1d(np.arange(len(rows)), chosen)
            return np.array([*chosen, *free[: clusters - len(chosen)]])
        drawn = np.minimum(np.searchsorted(running, rng.random(tries) * running[-1], side="right"), len(rows) - 1)
        after = np.maximum(squares[:, None] + squares[drawn] - 2 * (rows @ rows[drawn].T), 0)
        after = np.minimum(after, nearest[:, None])
        pick = int(after.sum(axis=0).argmin())
        chosen.append(int(drawn[pick]))
        nearest = after[:, pick].copy()
        nearest[chosen] = 0
    return np.array(chosen)


def _constrained(rows: Float[np.ndarray, "n d"], clusters: int, seed: int, iterations: int) -> Int[np.ndarray, " n"]:
    """The same by k-means-constrained, from one start."""
    from k_means_constrained import KMeansConstrained  # pyright: ignore[reportMissingImports]  # an optional extra

    sizes = balanced_sizes(len(rows), clusters)
    solver = KMeansConstrained(
        clusters, size_min=int(sizes.min()), size_max=int(sizes.max()), n_init=1, max_iter=iterations, random_state=seed
    )
    return np.asarray(solver.fit_predict(rows), dtype=np.int64)


def _own_order(rows: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
    """An order of the rows that does not depend on how they are given: by their first value, then the second, and so on."""
    bits = (np.round(rows, 6).astype(">f4") + np.float32(0)).astype(">f4").view(">u4")  # + 0: there is one zero
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(">u4")  # bytes that sort as the numbers do
    return np.array(sorted(range(len(rows)), key=lambda row: keys[row].tobytes()), dtype=np.int64)
