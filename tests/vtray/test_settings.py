from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vtray import settings
from vtray.errors import ConfigError


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Flip(Strict):
    op: Literal["flip"] = "flip"
    p: float = Field(0.5, ge=0, le=1, description="probability of mirroring")


class Blur(Strict):
    op: Literal["blur"] = "blur"
    sigma: tuple[float, float] = (0.1, 2.0)
    size_px: int | tuple[int, int] = 3


class Group(Strict):
    op: Literal["group"] = "group"
    operators: tuple["Any3", ...]


Any3 = Annotated[Flip | Blur | Group, Field(discriminator="op")]
Group.model_rebuild()


class Output(Strict):
    uri: str
    format: Literal["parquet", "folder"] = "parquet"


class Config(Strict):
    output: Output
    operators: tuple[Any3, ...] = ()
    seed: int = Field(0, ge=0)
    low: float = 0
    high: float = 1

    @model_validator(mode="after")
    def ordered(self):
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; swap them")
        return self


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def faults(tmp_path, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        settings.load(Config, file=write(tmp_path, text), overrides=overrides)
    return str(caught.value).replace(str(tmp_path) + "/", "").splitlines()


def test_file_then_overrides_in_order(tmp_path):
    file = write(tmp_path, "output: {uri: a}\nseed: 1\noperators: [{op: flip, p: 0.2}]\n")
    config = settings.load(
        Config, file=file, overrides=["seed=2", "seed=3", "operators.0.p=1e-1", "output.uri=b=c"]
    )
    assert (config.seed, config.operators[0].p, config.output.uri) == (3, 0.1, "b=c")


def test_overrides_alone_are_enough():
    assert settings.load(Config, overrides=["output.uri=x"]).output.uri == "x"


def test_dump_loads_back_to_an_equal_config(tmp_path):
    config = settings.load(Config, overrides=["output.uri=x", "operators=[{op: blur}]"])
    assert settings.load(Config, file=write(tmp_path, settings.dump(config))) == config


def test_all_faults_at_once_each_with_place_value_and_remedy(tmp_path):
    text = "output: {uir: a}\nseed: -1\noperators: [{op: flpi}, {op: flip, p: 2}]\n"
    lines = faults(tmp_path, text, "output.format=csv")
    assert len(lines) == 6
    assert "run.yaml: output.uir: not a known key; did you mean 'uri'?" in "\n".join(lines)
    assert any(
        line.startswith("--set: output.format: 'csv' is not allowed; allowed: folder, parquet") for line in lines
    )
    assert any(
        line.startswith("run.yaml: operators.0: 'flpi' is not known; did you mean 'flip'?") for line in lines
    )
    assert "run.yaml: operators.1.p: 2 is not allowed; allowed: >= 0 and <= 1 (probability of mirroring)" in lines
    assert "run.yaml: seed: -1 is not allowed; allowed: >= 0" in lines
    assert any("output.uri: required, but not given" in line for line in lines)


def test_faults_inside_nested_operators_name_their_place(tmp_path):
    text = "output: {uri: a}\noperators: [{op: group, operators: [{op: flip}, {op: flip, q: 1}]}]\n"
    assert faults(tmp_path, text) == [
        "run.yaml: operators.0.operators.1.q: not a known key; allowed: op, p",
    ]


def test_a_plain_union_is_one_line(tmp_path):
    lines = faults(tmp_path, "output: {uri: a}\noperators: [{op: blur, size_px: big}]\n")
    assert len(lines) == 1
    assert lines[0].startswith("run.yaml: operators.0.size_px: 'big'")


def test_a_rule_over_two_fields_is_told(tmp_path):
    assert "low 2.0 is above high 1; swap them" in faults(tmp_path, "output: {uri: a}\nlow: 2\n")[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("operators.5.p=1", "does not name an item"),
        ("seed={", "not a YAML value"),
    ],
)
def test_malformed_overrides(tmp_path, override, said):
    assert said in faults(tmp_path, "output: {uri: a}\noperators: [{op: flip}]\n", override)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "not a mapping"),
        ("seed: 1\nseed: 2\n", "given twice"),
        ("\0", "not valid YAML"),
    ],
)
def test_malformed_files(tmp_path, text, said):
    line = faults(tmp_path, text)[0]
    assert "run.yaml" in line
    assert said in line


def test_missing_file_names_a_similar_one(tmp_path):
    write(tmp_path, "")
    with pytest.raises(ConfigError, match=r"rnu.yaml: no such config file; did you mean .*run.yaml"):
        settings.load(Config, file=tmp_path / "rnu.yaml")


def test_binary_file_is_told(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        settings.load(Config, file=tmp_path / "x.yaml")
