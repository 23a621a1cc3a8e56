"""The commands that fetch and hand over images."""

import click

from store.options import Sectioned, json_option, on_workspace, print_json, say, workspace_option
from store.workspace import Workspace

SECTIONS = {
    "Servers": (
        "concurrency",
        "per_host",
        "rate",
        "retries",
        "timeout",
        "contact",
        "ca_file",
        "allow_private",
    ),
    "Size of an image": ("max_bytes", "max_pixels"),
}


@click.command("images", cls=Sectioned, sections=SECTIONS)
@workspace_option
@click.option("--retry-failed", is_flag=True, help="Also ask again for links that failed in an earlier run.")
@click.option("--refresh", is_flag=True, help="Ask the servers whether images stored here have changed.")
@click.option(
    "--allow-private",
    is_flag=True,
    help="Also ask private and loopback addresses (intranets, tests); metadata services stay refused.",
)
@click.option(
    "--concurrency", type=click.IntRange(1, 1024), default=64, help="Requests at a time, all hosts together."
)
@click.option("--per-host", type=click.IntRange(1, 1024), default=16, help="Requests at a time to one host.")
@click.option(
    "--rate", type=click.FloatRange(0), default=0.0, help="Most requests a second to one host; 0: no limit."
)
@click.option(
    "--retries",
    type=click.IntRange(0, 20),
    default=3,
    help="Retries after temporary failures: 429, 5xx, time-outs, broken connections.",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=60.0, help="Most seconds for one request, body included."
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    default=25_000_000,
    help="Most bytes of one image, as sent and after unpacking.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1, 178_956_970),
    default=120_000_000,
    help="Most pixels of one image; Pillow decodes no more than 178,956,970.",
)
@click.option(
    "--contact",
    help="E-mail address or page in the user agent, so that operators of servers can write to you.",
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="PEM file of further certificate authorities, for intranets.",
)
@json_option
def images(
    workspace: Workspace,
    retry_failed: bool,
    refresh: bool,
    allow_private: bool,
    concurrency: int,
    per_host: int,
    rate: float,
    retries: int,
    timeout: float,
    max_bytes: int,
    max_pixels: int,
    contact: str | None,
    ca_file: str | None,
    as_json: bool,
) -> None:
    """Fetch the images behind the catalogue's links.

    A run that was stopped continues where it was. Every link gets a row in images/links.parquet, with the digest of its
    image or the reason why there is none. Stored images are not fetched again; failed links are tried again with
    --retry-failed.

    \b
    Examples:
      shelfprice catalog images -w run
      shelfprice catalog images --retry-failed --per-host 4 -w run
    """
    from store.catalog.download.fetch import FetchLimits
    from store.catalog.download.progress import Progress
    from store.catalog.download.report import as_dict, as_lines, refuse_if_unreachable
    from store.catalog.download.run import DownloadSettings, download_images
    from store.catalog.download.schedule import Policy

    settings = DownloadSettings(
        limits=FetchLimits(
            max_bytes=max_bytes,
            max_pixels=max_pixels,
            connect_seconds=min(10.0, timeout),
            silent_seconds=min(15.0, timeout),
            total_seconds=timeout,
        ),
        policy=Policy(per_host=per_host, rate=rate, retries=retries),
        concurrency=concurrency,
        allow_private=allow_private,
        contact=contact,
        ca_file=ca_file,
        retry_failed=retry_failed,
        refresh=refresh,
    )
    summary = download_images(workspace, settings, Progress())
    if as_json:
        print_json(as_dict(summary))
    else:
        say("\n".join(as_lines(summary)))
    refuse_if_unreachable(summary)
    if not as_json:
        say(f"next: {on_workspace('shelfprice embed run', workspace.root)}")


@click.command("images-export")
@workspace_option
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(),
    help="A new or empty folder, or a file ending in .tar, to write.",
)
@json_option
def images_export(workspace: Workspace, target: str, as_json: bool) -> None:
    """Write all images and links to a folder or a tar.

    Another workspace reads them by 'shelfprice catalog images-import'.

    \b
    Examples:
      shelfprice catalog images-export --to images.tar -w run
    """
    from store.catalog.download.archive import export_images
    from store.outputs import Output, check_outputs

    check_outputs({"--to": Output(target)}, workspace=workspace)
    done = export_images(workspace, target)
    if as_json:
        print_json({"n_links": done.n_links, "n_images": done.n_images, "n_bytes": done.n_bytes})
    else:
        say(f"{target}: {done.n_images} images ({done.n_bytes / 1e6:.1f} MB) of {done.n_links} links")


@click.command("images-import")
@workspace_option
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Path(exists=True),
    help="A folder or tar written by images-export, or the images/ folder of another workspace.",
)
@json_option
def images_import(workspace: Workspace, source: str, as_json: bool) -> None:
    """Take images and links from a folder or a tar.

    The source is what 'shelfprice catalog images-export' wrote. The digest of every image is checked.

    \b
    Examples:
      shelfprice catalog images-import --from images.tar -w run
    """
    from store.catalog.download.archive import import_images

    done = import_images(workspace, source)
    if as_json:
        print_json(
            {
                "n_links": done.n_links,
                "n_images": done.n_images,
                "n_bytes": done.n_bytes,
                "n_present": done.n_present,
                "passed_over": dict(done.passed_over),
            }
        )
        return
    say(
        f"{done.n_images} new images ({done.n_bytes / 1e6:.1f} MB), {done.n_present} were stored before, "
        f"{done.n_links} links imported"
    )
    for reason, n in done.passed_over:
        say(f"passed over: {n} {reason}")
