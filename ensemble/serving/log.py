"""Logs as lines of JSON on stderr: events, without texts of products or tokens."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

LOGGER = "shelfprice.serving"


class JsonLines(logging.Formatter):
    """One JSON object a line. Of an exception: its class and where it was raised, as its words may quote a product."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["where"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(line)


def log_event(
    event: str, level: int = logging.INFO, error: BaseException | None = None, **fields: Any
) -> None:
    """A line of the log."""
    exc_info = (type(error), error, error.__traceback__) if error is not None else None
    logging.getLogger(LOGGER).log(level, event, exc_info=exc_info, extra={"fields": fields})


def start_logging(level: str) -> None:
    """Send the log of this server to stderr, and what uvicorn warns of."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    least = logging.getLevelNamesMapping()[level.upper()]
    for name, own in ((LOGGER, least), ("uvicorn", max(least, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(own)
        logger.propagate = False
