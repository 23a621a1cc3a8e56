"""What commands keep for a user goes to a folder of the tests' own."""

import atexit
import os
import shutil
import tempfile

os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="shelfprice-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)
