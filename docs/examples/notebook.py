# ruff: noqa: F704  # cells may await
# %%
# A notebook's cells run on an event loop, so a run is awaited in them.
from furu import Furu, run_local_async


class Samples(Furu[list[float]]):
    seed: int

    def _create(self) -> list[float]:
        return [(self.seed * 7919 * n) % 101 / 101 for n in range(1, 50)]


class Mean(Furu[float]):
    samples: Samples

    def _create(self) -> float:
        values = self.samples.get()
        return sum(values) / len(values)


# %%
# Run, and look at what was done.
means = [Mean(samples=Samples(seed=seed)) for seed in range(1, 4)]
report = await run_local_async(means)
print("computed:", report.computed)

# %%
# Load the values. `get()` would read files on the loop, which a notebook can bear.
print([round(await mean.aget(), 3) for mean in means])

# %%
# Run the cells again, or another notebook's with the same nodes: nothing is computed twice.
print("computed again:", (await run_local_async(means)).computed)
