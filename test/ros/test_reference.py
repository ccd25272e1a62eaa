"""docs/reference.md says what the declarations say."""

import re

from vidseg_ros import parameters


def test_parameter_table(checkout):
    assert (checkout / "docs" / "reference.md").read_text(encoding="utf-8").endswith(parameters.markdown())


def test_the_guide_for_vehicles_names_what_is_there(checkout):
    text = (checkout / "docs/vehicle.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert len(links) >= 4 and all((checkout / "docs" / link).is_file() for link in links)
    assert set(re.findall(r"\w+\.launch\.py", text)) == {
        path.name for path in (checkout / "launch").glob("*.launch.py")
    }
    given = set(re.findall(r"`(\w+): \w+`", text)) | set(re.findall(r"^        (\w+): [\w.]+$", text, re.MULTILINE))
    assert {"sync", "autostart", "key_frames"} <= given <= set(parameters.DECLARATIONS)
