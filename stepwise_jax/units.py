"""Numbers as people read them."""


def percent(fraction: float | None) -> str:
    """An accuracy as people read it: fractions in files, per cent on screen, a dash where none was measured."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
