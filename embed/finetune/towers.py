"""Which encoders are tuned together, and what their tuned vectors will be called."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from embed.encoders.base import PREPARED_BY, Resolved, Sources
from embed.encoders.resolve import resolve
from store.errors import ConfigError, MissingVectorsError
from store.vectors.sets import TUNED, VectorSet, current_spec
from store.workspace import Workspace


@dataclass(frozen=True)
class Tower:
    """One encoder that is tuned: it embeds images, texts of one composition, or both together."""

    resolved: Resolved  # before tuning; its spec is the one that the cached vectors were made by
    vector_set: VectorSet  # of the cached vectors
    tuned: VectorSet  # of the vectors after tuning

    @property
    def takes_items(self) -> bool:
        """Whether the encoder prepares its inputs itself: images of any size, or images and texts together."""
        return PREPARED_BY in self.resolved.spec.preprocessing

    @property
    def is_image(self) -> bool:
        """Whether images of one size enter."""
        return self.resolved.spec.modality == "image" and not self.takes_items


def find_towers(workspace: Workspace, asked: Sequence[str], name: str, sources: Sources) -> list[Tower]:
    """The encoders that the user asks for; one with two towers stands for both.

    Args:
        asked: encoders or vector sets; a text encoder without a composition takes the default one.
        name: of the run: tuned encoders are called `finetuned:<name>.image` and `.text`, numbered where several
            are of one kind.

    Raises:
        EncoderError: an unknown encoder, or files missing.
        ConfigError: an unknown composition, or an encoder named twice.
        MissingVectorsError: there are no cached vectors of exactly this encoder; names the command.
    """
    found: list[tuple[Resolved, VectorSet]] = []
    for one in asked:
        encoder, at, composition = one.partition("@")
        for resolved in resolve(workspace, encoder, sources):
            is_image = resolved.spec.modality == "image"
            own = at + composition if not is_image or resolved.spec.name == encoder else ""
            vector_set = VectorSet.parse(f"{resolved.spec.name}{own}", resolved.spec.modality)
            if vector_set.encoder in {known.encoder for _, known in found}:
                raise ConfigError(f"{vector_set.encoder} is named twice: name each encoder once")
            found.append((_as_cached(workspace, resolved, vector_set), vector_set))
    towers = []
    for at_, (resolved, vector_set) in enumerate(found):
        kind = resolved.spec.modality
        alike = [i for i, (other, _) in enumerate(found) if other.spec.modality == kind]
        number = str(alike.index(at_) + 1) if len(alike) > 1 else ""
        tuned = VectorSet(f"{TUNED}{name}.{kind}{number}", vector_set.composition)
        towers.append(Tower(resolved, vector_set, tuned))
    return towers


def _as_cached(workspace: Workspace, resolved: Resolved, vector_set: VectorSet) -> Resolved:
    """The encoder with the precision policy of its cached vectors, which must be of the same weights and inputs."""
    command = f"run 'shelfprice embed run -e {vector_set}'"
    try:
        cached = current_spec(workspace, vector_set.encoder)
    except MissingVectorsError as error:
        raise MissingVectorsError(
            f"the warm-up needs cached vectors of {vector_set}, and there are none: {command}"
        ) from error
    spec = replace(resolved.spec, precision=cached.precision)
    if spec.fingerprint != cached.fingerprint:
        raise MissingVectorsError(
            f"the cached vectors of {vector_set} are of other weights or preprocessing ({cached.fingerprint}) than the "
            f"encoder to tune ({spec.fingerprint}): {command}"
        )
    return replace(resolved, spec=spec)
