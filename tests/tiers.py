"""Which tier a test belongs to, decided from its fixtures and its place.

    unit       everything that is not named below: no child program, no server, about a second at most
    programs   starts child programs: the core, the linter, the command line
    servers    needs PostgreSQL, Valkey, an object store, or the service itself
    slow       computes for seconds in its own process

`make test-unit` runs `unit`, `make test` all of them. A unit test that starts a program fails.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Fixtures that start a server; a test that uses one of these, also through others, is in `servers`.
SERVER_FIXTURES = frozenset({"postgres", "valkey", "seaweedfs", "server", "serving", "stack", "fleet"})

# Places below tests/: a folder, a file, or `file::test`. tests/test_tiers.py checks that each exists.
PLACES: dict[str, tuple[str, ...]] = {
    "servers": (
        "chaos",
        "cli/test_embedded.py",
        "cli/test_serve.py",
        "cli/test_stack.py",
        "deployment/test_commands.py",
        "integration",
        "test_readme.py",
    ),
    "programs": (
        "api/test_health.py::test_the_edge_starts_without_torch",
        "benchmarks/test_trials.py::test_a_trial_is_identified_by_what_its_outcome_depends_on",
        "benchmarks/test_trials.py::test_an_interrupted_table_goes_on_and_repeats_nothing",
        "cli/test_client_install.py",
        "deployment",
        "jobs/files/test_store.py::test_a_full_disk_is_reported_and_its_files_stay",
        "nayer/test_package.py::test_an_editable_install_is_found_above_a_checkout_of_the_same_name",
        "nayer/test_package.py::test_the_import_needs_neither_the_service_nor_the_command_line",
        "nayer_core/hardware/test_allocator.py",
        "nayer_core/hardware/test_launch.py",
        "nayer_core/hardware/test_optimizers.py::test_a_run_does_not_load_torchs_compiler",
        "nayer_core/hardware/test_peers.py",
        "nayer_core/methods/nayer/test_estimate.py::test_a_real_run_takes_about_what_is_estimated",
        "nayer_core/test_program.py",
        "nayer_core/uploads/test_jail.py::test_nothing_else_can_be_reached",
        "test_architecture.py::test_a_library_imported_in_the_wrong_file_breaks_a_contract",
        "test_architecture.py::test_a_service_imported_by_the_wrong_caller_breaks_a_contract",
        "test_architecture.py::test_rooms_import_only_what_they_may",
        "test_architecture.py::test_torch_stays_in_the_core",
        "worker/process",
        "worker/test_celery_app.py::test_importing_the_tasks_needs_no_environment_and_no_torch",
    ),
    "slow": (
        "api/test_multipart.py::test_a_body_may_be_slow_but_not_below_the_least_rate",
        "api/test_wording.py::test_a_spec_full_of_mistakes_costs_little",
        "benchmarks/test_published.py",
        "examples",
        "jobs/files/test_store.py::test_a_file_is_read_as_it_was_stored",
        "jobs/test_doorbell.py::test_a_silent_open_port_does_not_delay_callers",
        "nayer_core/commands",
        "nayer_core/label_embeddings",
        "nayer_core/methods/nayer/test_algorithm.py::test_a_resumed_run_has_reported_what_the_whole_run_reports",
        "nayer_core/methods/nayer/test_algorithm.py::test_a_stopped_run_resumes_to_bitwise_the_same_student",
        "nayer_core/methods/nayer/test_algorithm.py::test_ablations_stop_and_resume_bit_by_bit_too",
        "nayer_core/methods/nayer/test_algorithm.py::test_checkpointing_does_not_change_the_student",
        "nayer_core/methods/nayer/test_algorithm.py::test_the_same_seed_gives_bitwise_the_same_student",
        "nayer_core/methods/nayer/test_algorithm.py::test_the_random_numbers_of_dropout_are_resumed",
        "nayer_core/methods/nayer/test_estimate.py::test_the_size_of_the_embeddings_is_known_before_they_are_made",
        "nayer_core/networks/test_choice.py::test_networks_with_windows_of_other_sizes_are_two",
        "nayer_core/networks/test_fingerprints.py::test_the_index_groups_networks_that_compute_the_same",
        "nayer_core/networks/test_recognition.py",
        "nayer_core/networks/test_registry.py::test_any_images_become_logits",
        "nayer_core/networks/test_registry.py::test_images_that_a_network_cannot_take_are_refused",
        "nayer_core/networks/test_registry.py::test_library_names_of_the_catalog_can_be_built",
        "nayer_core/networks/test_registry.py::test_library_networks_take_classes_channels_and_size",
        "nayer_core/networks/test_weights.py::test_a_teacher_of_another_team_scores_what_it_did",
        "nayer_core/running",
        "nayer_core/uploads",
    ),
}

_TESTS = Path(__file__).parent

_unit_test: list[str] = []  # the unit test that is running, if one is


def tier_of(item: pytest.Item) -> str:
    """Name the tier of a test; a parameter may also be the name of the fixture that it uses."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if SERVER_FIXTURES & {*getattr(item, "fixturenames", ()), *map(str, parameters)}:
        return "servers"
    return _tier_at(item.nodeid.removeprefix("tests/").partition("[")[0])


def _tier_at(place: str) -> str:
    for tier, places in PLACES.items():
        if any(place == entry or place.startswith((f"{entry}/", f"{entry}::")) for entry in places):
            return tier
    return "unit"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For `-m unit`, do not import files without a unit test: their imports take seconds."""
    if config.option.markexpr != "unit" or not collection_path.is_relative_to(_TESTS):
        return None
    return True if _tier_at(collection_path.relative_to(_TESTS).as_posix()) != "unit" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its tier, before pytest selects by marker."""
    for item in items:
        if item.get_closest_marker("chaos") is None:  # marked in its own file, and in no other tier
            item.add_marker(tier_of(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Remember for the audit hook below whether a unit test is running."""
    _unit_test[:] = [item.nodeid] if item.get_closest_marker("unit") else []
    try:
        return (yield)
    finally:
        _unit_test.clear()


def _forbid_programs(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and _unit_test:
        pytest.fail(f"{_unit_test[0]} is a unit test and starts {arguments[1]}: see PLACES in tests/tiers.py")


sys.addaudithook(_forbid_programs)
