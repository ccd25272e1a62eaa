"""docs/reference.md says what the declarations say."""

from vidseg_ros import parameters


def test_parameter_table(checkout):
    assert (checkout / "docs" / "reference.md").read_text(encoding="utf-8").endswith(parameters.markdown())
