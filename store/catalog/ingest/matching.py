"""The images of a folder: which file is which row's, and what is said of the others."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from store.catalog.download.addresses import split_links
from store.catalog.images.blobs import FolderImport
from store.catalog.images.folder import NO_ID, RULES, Folder, Match, no_match
from store.catalog.images.links import FILE_PREFIX
from store.catalog.ingest.ids import Id
from store.catalog.ingest.inline import names_file
from store.catalog.ingest.publish import Split
from store.catalog.read import split_path
from store.workspace import Workspace


def match_images(folder: Folder, splits: list[Split], notes: list[str]) -> None:
    """Find the file of each row; what was found by another rule than the usual ones is counted in the notes."""
    ids = [set(split.rows.sample_id) for split in splits]
    shared = set.intersection(*ids) if len(ids) > 1 else set()
    counts: Counter[str] = Counter()
    gone: dict[str, list[list[str]]] = {}  # split -> files that each row names and the folder lacks
    for split in splits:
        pairs = list(zip(split.rows.sample_id, split.link, strict=True))
        found = [folder.find(split.name, one, link, is_shared=one in shared) for one, link in pairs]
        links_of: dict[str, set[str | None]] = defaultdict(set)  # file that another extension led to -> links
        for match, (_, link) in zip(found, pairs, strict=True):
            if match is not None and match.rule == "extension":
                links_of[match.name].add(link)
        found = [None if match is not None and len(links_of[match.name]) > 1 else match for match in found]
        files = [_files(folder, split, match, link) for match, (_, link) in zip(found, pairs, strict=True)]
        split.files = [names for names, _ in files]
        gone[split.name] = [missing for _, missing in files]
        counts.update(match.rule for match in found if match is not None and match.rule is not None)
    _add_numbered(folder, splits, shared, counts)
    notes.extend(f"{counts[rule]} rows have their image {how}" for rule, how in RULES.items() if counts[rule])
    for split in splits:
        if split.images_per_row == "first":
            split.files = [names[:1] for names in split.files]
    taken = {name for split in splits for names in split.files for name in names}
    plain = [match for one in shared if (match := folder.find("train", one, None)) is not None]
    if unclear := [match.name for match in plain if match.name not in taken]:
        notes.append(
            f"{len(unclear)} images are named by an id that stands in both files and are taken for neither (first: "
            f"{min(unclear)}): name them train_<id> or test_<id>"
        )
    n_rows, whys = _without_image(folder, splits, shared)
    if not taken:
        first = splits[0]
        why = next(iter(whys.values()), None)
        raise no_match(folder, first.name, first.rows.sample_id, first.link, why)
    notes.extend(f"no image for {n_rows[kind]} rows: {why}" for kind, why in whys.items() if kind != "split")
    notes.extend(_named_and_gone(splits, gone))


def _without_image(
    folder: Folder, splits: list[Split], shared: set[Id]
) -> tuple[Counter[str], dict[str, str]]:
    """Rows whose image is in the folder and not taken: how many by the kind of reason, and the first of each kind."""
    n_rows: Counter[str] = Counter()
    whys: dict[str, str] = {}
    for split in splits:
        for one, link, names in zip(split.rows.sample_id, split.link, split.files, strict=True):
            if not names and (found := folder.why_none(split.name, one, link, is_shared=one in shared)):
                n_rows[found[0]] += 1
                whys.setdefault(*found)
    return n_rows, whys


def _named_and_gone(splits: list[Split], gone: dict[str, list[list[str]]]) -> Iterator[str]:
    """How many image files rows name that the folder lacks; of a row that names one, where it has no other."""
    rows = [
        (name, one)
        for split in splits
        for one, names, missing in zip(split.rows.sample_id, split.files, gone[split.name], strict=True)
        if not names or split.images_per_row == "all"
        for name in missing
    ]
    if rows:
        yield (
            f"images that rows name and the folder lacks: {len(rows)} (first: {rows[0][0]} of row {rows[0][1]}); these "
            "rows have their other images or none"
        )


def _files(
    folder: Folder, split: Split, match: Match | None, link: str | None
) -> tuple[list[str], list[str]]:
    """Every image file of a row, the one found for it and then those that its link column lists, and those not there."""
    names = [match.name] if match is not None else []
    if not link:
        return names, []
    listed = split_links(link) if split.images_per_row == "all" else None
    if listed is None:
        return names, [link] if match is None and names_file(link) else []
    missing = []
    for one in listed:
        if (other := folder.find(split.name, NO_ID, one)) is not None:
            names.append(other.name)
        elif one and names_file(one):
            missing.append(one)
    return list(dict.fromkeys(names)), missing


def _add_numbered(folder: Folder, splits: list[Split], shared: set[Id], counts: Counter[str]) -> None:
    """Files that are named by a row's id and a number, where they are no other row's."""
    taken = {name for split in splits for names in split.files for name in names}
    for split in splits:
        for at, sample_id in enumerate(split.rows.sample_id):
            numbered = folder.numbered(split.name, sample_id, is_shared=sample_id in shared)
            fresh = [name for name in numbered if name not in taken]
            if fresh:
                split.files[at] = [*split.files[at], *fresh]
                counts["numbered"] += 1


def not_images(imported: FolderImport) -> Iterator[str]:
    if imported.no_images:
        name, reason = imported.no_images[0]
        yield (
            f"files that are stored and are no images: {len(imported.no_images)} (first: {name}, {reason}): 'shelfprice "
            "embed run' counts them as failures"
        )


def images_left_out(workspace: Workspace) -> Iterator[str]:
    """Told when the catalogue before had images out of a folder and no folder is given now."""
    if not workspace.is_sound(split_path("train")):
        return
    before = workspace.read_table(split_path("train"), ["image"])["image"].to_pylist()
    n_lost = sum(1 for reference in before if reference is not None and reference.startswith(FILE_PREFIX))
    if n_lost:
        yield (
            f"{n_lost} train rows had an image out of a folder and have none now: "
            "give --images again to keep them"
        )
