"""Two modalities of one field: which picture is the HAADF, which spectra the EDS, how both are calibrated.

Which picture is the HAADF:

1. the one the user names (`image`: its title, its number in the file, or a part of its title);
2. else, elemental maps and pictures of another field aside, the one titled HAADF; then one with HAADF in its
   title (of several: the one with most frames, then the first, with a warning);
3. else the only one. Several without that name are not guessed at: an error lists them.

Calibration: what the user gives wins (`pixel_nm` is the pixel of the finer modality); what one modality lacks
follows from the other, because they cover one field; what neither has must be given.
"""

from __future__ import annotations

from collections.abc import Sequence

from livestem.domain.errors import SourceError, StageError
from livestem.domain.geometry import Sampling, sampling_ratio
from livestem.sources.signals import Picture, SpectrumImage

_DIFFERS = 0.01  # a calibration given by hand that is off by more than 1 % is worth a word


def choose_picture(
    pictures: Sequence[Picture], eds: SpectrumImage | None, image: str | None
) -> tuple[Picture | None, list[str]]:
    """Choose the HAADF among the pictures of a recording; the rule is the module's.

    Returns
    -------
    picture : None if there is none
    warnings

    Raises
    ------
    SourceError
        If `image` names none or several, or the choice is not clear.
    """
    if image is not None:
        return _named(pictures, image), []
    candidates = [p for p in pictures if not p.elemental]
    if eds is not None and len(candidates) > 1:
        candidates = [p for p in candidates if _same_field(p, eds)] or candidates
    titled = [p for p in candidates if "HAADF" in p.title.upper()]
    best = [p for p in titled if p.title.strip().upper() == "HAADF"] or titled or candidates
    if not best:
        return None, []
    if len(best) == 1:
        return best[0], []
    if not titled:
        raise SourceError(f"{_files(best)} holds the images {_listed(best)}; choose the HAADF with --image TITLE")
    chosen = max(best, key=lambda p: p.shape[0])  # max keeps the first of equals
    return chosen, [f"{_files(best)} holds {len(best)} images called HAADF; number {chosen.number} is used"]


def choose_eds(spectra: Sequence[SpectrumImage]) -> tuple[SpectrumImage | None, list[str]]:
    """Choose the EDS: the only spectrum image, or the first of one file with a warning.

    Raises
    ------
    SourceError
        If several files hold one.
    """
    if not spectra:
        return None, []
    paths = sorted({s.path.name for s in spectra})
    if len({s.path for s in spectra}) > 1:
        raise SourceError(f"{' and '.join(paths)} both hold EDS; give one scan, or --haadf FILE --eds FILE")
    if len(spectra) == 1:
        return spectra[0], []
    return spectra[0], [f"{paths[0]} holds {len(spectra)} spectrum images; the first, {spectra[0].title!r}, is used"]


def calibrate(
    haadf: Picture | None, eds: SpectrumImage | None, pixel_nm: float | None, rotation_deg: float
) -> tuple[Sampling | None, Sampling | None, list[str]]:
    """Return how HAADF and EDS sample the field, with warnings.

    Parameters
    ----------
    haadf, eds : the chosen signals; at least one
    pixel_nm : pixel of the finer of the two, nm, as the user gives it
    rotation_deg : scan rotation, degrees

    Raises
    ------
    SourceError
        If no pixel size is known, or the two are not one field sampled in whole multiples.
    """
    shapes = {"haadf": haadf.shape[1:3] if haadf else None, "eds": eds.shape[1:3] if eds else None}
    present = {m: shape for m, shape in shapes.items() if shape is not None}
    stated = {m: s.pixel_nm for m, s in (("haadf", haadf), ("eds", eds)) if s is not None and s.pixel_nm is not None}
    warnings: list[str] = []
    if pixel_nm is not None:
        finest = tuple(max(shape[axis] for shape in present.values()) for axis in (0, 1))
        warnings = _off(stated, pixel_nm)
        stated = {m: (pixel_nm * finest[0] / s[0], pixel_nm * finest[1] / s[1]) for m, s in present.items()}
    if not stated:
        one = haadf or eds
        raise SourceError(f"{one.path.name if one else ''} has no pixel size; give it with --pixel-nm NUMBER")
    samplings: dict[str, Sampling] = {}
    for modality, shape in present.items():
        pixel = stated.get(modality)
        if pixel is None:
            other, known = next(iter(stated.items()))
            pixel = (known[0] * present[other][0] / shape[0], known[1] * present[other][1] / shape[1])
            warnings.append(
                f"the {modality.upper()} has no pixel size; it is taken to cover the {other.upper()}'s field"
            )
        samplings[modality] = Sampling(shape=shape, pixel_nm=pixel, rotation_deg=rotation_deg)
    if len(samplings) == 2:
        try:
            sampling_ratio(samplings["haadf"], samplings["eds"])
        except StageError as error:
            raise SourceError(str(error)) from error
    return samplings.get("haadf"), samplings.get("eds"), warnings


def _off(stated: dict[str, tuple[float, float]], pixel_nm: float) -> list[str]:
    known = min((p[1] for p in stated.values()), default=pixel_nm)
    if abs(known / pixel_nm - 1) <= _DIFFERS:
        return []
    return [f"--pixel-nm {pixel_nm:g} replaces the recorded {known:.4g} nm"]


def _named(pictures: Sequence[Picture], image: str) -> Picture:
    wanted = image.strip().casefold()
    for found in (
        [p for p in pictures if p.title.strip().casefold() == wanted],
        [p for p in pictures if wanted.isdigit() and p.number == int(wanted)],
        [p for p in pictures if wanted in p.title.casefold()],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise SourceError(f"--image {image} fits several images: {_listed(found)}; give the number of one")
    raise SourceError(f"no image is called {image!r}; there are {_listed(pictures) or 'none'}")


def _same_field(picture: Picture, eds: SpectrumImage) -> bool:
    if picture.pixel_nm is None or eds.pixel_nm is None:
        return picture.shape[1:] == eds.shape[1:3]
    coarse = max(picture.pixel_nm[1], eds.pixel_nm[1])
    sizes = zip(picture.shape[1:], picture.pixel_nm, eds.shape[1:3], eds.pixel_nm, strict=True)
    return all(abs(n * p - m * q) <= coarse / 2 for n, p, m, q in sizes)


def _listed(pictures: Sequence[Picture]) -> str:
    return ", ".join(f"{p.number} {p.title!r}" for p in pictures)


def _files(pictures: Sequence[Picture]) -> str:
    return " and ".join(sorted({p.path.name for p in pictures}))
