"""Images on disk: links.parquet says which bytes a reference stands for; blobs hold the bytes by content."""

from store.workspace import Workspace

LINKS_FILE = "images/links.parquet"


def blob_path(sha256_hex: str) -> str:
    """Where the bytes with this digest lie: two characters of fan-out, then the digest."""
    return f"images/blobs/{sha256_hex[:2]}/{sha256_hex}"


def image_digests(workspace: Workspace) -> dict[str, str]:
    """Image reference (column `image` of the catalogue) -> hex SHA-256, for every image that is there."""
    if not workspace.exists(LINKS_FILE):
        return {}
    links = workspace.read_table(LINKS_FILE, ["link", "sha256"])
    pairs = zip(links["link"].to_pylist(), links["sha256"].to_pylist(), strict=True)
    return {link: sha256 for link, sha256 in pairs if sha256 is not None}
