import httpx

from nayer_core.contract import catalog
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.presets import PRESETS


def test_every_architecture_is_listed_once(client: httpx.Client) -> None:
    architectures = client.get("/architectures").json()
    names = [item["name"] for item in architectures["data"]]
    assert len(names) == len(set(names)) == architectures["total"]
    assert set(names) == {
        *catalog.OWN_ARCHITECTURES,
        *catalog.WIDE_RESNETS,
        *catalog.library_architectures(),
    }
    assert all(item["family"] and item["notes"] for item in architectures["data"])
    for name in names:
        catalog.require_architecture(name)


def test_architectures_are_searched_by_words(client: httpx.Client) -> None:
    matches = client.get("/architectures", params={"q": "WIDE 40"}).json()["data"]
    assert {item["name"] for item in matches} == {"wrn_40_1", "wrn_40_2", "wrn_40_4"}
    assert client.get("/architectures", params={"q": "no such thing"}).json() == {"data": [], "total": 0}


def test_presets_say_every_value(client: httpx.Client) -> None:
    presets = client.get("/presets").json()
    assert presets["default"] in PRESETS
    assert {item["name"] for item in presets["data"]} == set(PRESETS)
    for item in presets["data"]:
        assert item["config"] == PRESETS[item["name"]].config.model_dump(mode="json")


def test_the_schema_is_that_of_the_contract(client: httpx.Client) -> None:
    schema = client.get("/schema").json()
    assert schema["distill_config"] == DistillConfig.model_json_schema()
    assert set(schema["job_spec"]["required"]) == {"labels", "teacher", "student"}
    for field, described in schema["distill_config"]["properties"].items():
        assert "default" in described, field
