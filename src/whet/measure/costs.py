"""What the user knows of the costs of a machine."""

from __future__ import annotations

from dataclasses import dataclass

from whet.errors import UsageError

# Carbon intensity of the world's electricity in 2024: Ember, Global Electricity Review 2025.
GRAMS_A_KWH = 473.0


@dataclass(frozen=True)
class Costs:
    """price_an_hour: of the machine, in any currency. hours: what making the lighter model took on such a machine.
    watts: of a core that works; None: read from the machine where it can be. grams_a_kwh: CO2 of the electricity."""

    price_an_hour: float | None = None
    hours: float | None = None
    watts: float | None = None
    grams_a_kwh: float = GRAMS_A_KWH

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot be."""
        for name, value in (("price", self.price_an_hour), ("hours", self.hours), ("watts", self.watts),
                            ("carbon", self.grams_a_kwh)):  # fmt: skip
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError("{name} is {value}; it must be a number from 0.", name=name, value=value)
        if self.hours is not None and self.price_an_hour is None:
            raise UsageError("hours say when making the model has paid for itself, which needs a price an hour too.")
