"""Contact sheets with the exact production pixels: what goes in, what comes out, and what each operator does."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, zip_longest
from operator import itemgetter

from vtray.augment.control import OneOf, SomeOf, Sometimes
from vtray.augment.operator import Operator, Sample
from vtray.augment.variants import DecodedSource, VariantMaker, decode_source
from vtray.errors import ImageError
from vtray.images import decode, encode
from vtray.report.captions import describe_all, describe_values
from vtray.report.sheet import Cell, SheetRow, contact_sheet
from vtray.seeding import digest_of, rng_for
from vtray.sources import ImageRef, Unit, read_unit
from vtray.steps.augment_unit import AugmentUnit

NUM_IMAGES = 6
NUM_DRAWS = 5
MAX_VARIANTS = 6
MAX_TRIES = 50
SHEETS = {
    "variants.png": "Source images and their variants, with what was drawn",
    "operators.png": "Each operator of the recipe alone",
}


def preview_sheets(units: Sequence[Unit], step: AugmentUnit) -> dict[str, bytes]:
    """variants.png (rows: images, columns: variants as in the output) and operators.png (one row per operator)."""
    sources = list(islice(_sample(units, step), NUM_IMAGES))
    return {
        "variants.png": _variants_sheet(sources, VariantMaker(work=step.work)),
        "operators.png": _operators_sheet(sources, step.work.recipe.operators),
    }


def _sample(units: Sequence[Unit], step: AugmentUnit) -> Iterator[DecodedSource]:
    """Images that can be decoded and get variants: one of each class, then a second one; always the same."""
    by_class: dict[str | None, list[tuple[bytes, Unit, ImageRef]]] = defaultdict(list)
    for unit in units:
        for ref in unit.refs:
            if max(step.work.variants(ref.split), default=0):
                by_class[ref.class_name].append((digest_of("preview", step.work.seed, ref.image_id), unit, ref))
    order = sorted(by_class.values(), key=lambda members: min(member[0] for member in members))
    turns = zip_longest(*(sorted(members, key=itemgetter(0)) for members in order))
    for _, unit, ref in islice((member for turn in turns for member in turn if member), MAX_TRIES):
        image = next(read_unit(replace(unit, refs=(ref,))))
        if image.encoded is not None:
            with suppress(ImageError):
                yield decode_source(ref, image.encoded, step.work)


def _variants_sheet(sources: Iterable[DecodedSource], maker: VariantMaker) -> bytes:
    numbers = range(1, min(maker.work.recipe.variants, MAX_VARIANTS) + 1)
    rows = [
        SheetRow(
            label=source.ref.image_id,
            cells=[
                Cell(image=source.decoded.image),
                *(_cell(maker, source, n) for n in numbers),
            ],
        )
        for source in sources
    ]
    return _png(rows, columns=["source", *(f"variant {number}" for number in numbers)])


def _cell(maker: VariantMaker, source: DecodedSource, variant: int) -> Cell:
    """The decoded bytes of a row, as a reader of the output sees them."""
    try:
        row = maker.row(source, variant)
    except ImageError as error:
        return Cell(image=None, caption=str(error))
    return Cell(image=decode(row.image).image, caption=describe_all(json.loads(row.operators)))


def _operators_sheet(sources: Sequence[DecodedSource], operators: Sequence[Operator]) -> bytes:
    """Each operator of the recipe alone, drawn several times on one image."""
    rows = []
    for number, operator in enumerate(leaves(operators)):
        if sources:
            rows.append(_operator_row(operator, sources[number % len(sources)]))
    return _png(rows, columns=["before", *(f"draw {draw + 1}" for draw in range(NUM_DRAWS))])


def _operator_row(operator: Operator, source: DecodedSource) -> SheetRow:
    always = operator.model_copy(update={"p": 1.0})
    before = Sample(image=source.decoded.image)
    drawn = [always(before, rng_for("preview", draw, operator.op)) for draw in range(NUM_DRAWS)]
    cells = [Cell(image=sample.image, caption=describe_values(sample.applied[-1])) for sample in drawn]
    return SheetRow(label=operator.op, cells=[Cell(image=before.image), *cells])


def leaves(operators: Sequence[Operator]) -> Iterator[Operator]:
    """The operators of a recipe without the groups around them, in recipe order."""
    for operator in operators:
        if isinstance(operator, Sometimes | OneOf | SomeOf):
            yield from leaves(operator.operators)
        else:
            yield operator


def _png(rows: Sequence[SheetRow], *, columns: Sequence[str]) -> bytes:
    return encode(contact_sheet(rows, columns=columns), format="png")
