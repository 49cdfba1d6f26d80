"""`python -m musicssl_jax` is `musicssl`."""

import sys

from musicssl_jax.cli import main

sys.exit(main())
