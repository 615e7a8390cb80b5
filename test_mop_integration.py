"""The tests of the policies, under the name that they had in the integration guide."""

import sys

if __name__ == "__main__":
    import pytest

    sys.exit(pytest.main(["tests/mop/test_mixture_of_experts.py", *sys.argv[1:]]))
