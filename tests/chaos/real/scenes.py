"""The functions that inject each fault on real processes."""

from collections.abc import Callable

from tests.chaos.real import outages, processes, races, wrong_answers
from tests.chaos.real.case import Case

SCENES: dict[str, tuple[Callable[[Case], None], ...]] = {
    "F1": (processes.child_killed,),
    "F2": (processes.worker_killed, processes.worker_killed_as_commit_arrives),
    "F3": (processes.worker_drained,),
    "F4": (processes.worker_frozen,),
    "F5": (processes.out_of_memory,),
    "F6": (processes.api_killed,),
    "F7": (outages.broker_down,),
    "F8": (outages.broker_forgets,),
    "F9": (races.delivered_five_times,),
    "F10": (outages.database_restarts,),
    "F11": (outages.commit_cut, outages.commit_unanswered),
    "F12": (outages.store_down,),
    "F13": (
        wrong_answers.store_flips_bits,
        wrong_answers.store_breaks_off,
        wrong_answers.store_is_slow,
        wrong_answers.store_answers_503,
    ),
    "F18": (races.cancelled,),
    "F19": (outages.black_hole,),
    "F20": (races.upkeeps,),
    "F21": (races.deployment,),
}
