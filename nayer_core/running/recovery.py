"""Around a run: how it gets over diverging and over a device that is full.

    diverged          back to the newest good checkpoint, on with both learning rates halved;
                      three times, then the run is left in its last good state
    device is full    back to the newest checkpoint, on with the batch halved that did not fit, where
                      the client wants that; four times for either batch. A run that several processes
                      share ends: the others know nothing of the step that one could not take

A way that was left is left for good: its checkpoints are dropped, and the state the run goes on from
is saved at once, so that whoever resumes it knows what has happened.
"""

from collections.abc import Callable

from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import WarningEvent
from nayer_core.contract.spec import OnOutOfMemory
from nayer_core.hardware.device_memory import DeviceFull, do_within_memory, give_back_unused
from nayer_core.methods.nayer.algorithm import Distillation
from nayer_core.running.adaptation import MOST_HALVINGS, MOST_ROLLBACKS, SMALLEST_BATCH, Adaptation
from nayer_core.running.checkpoint import Checkpoint, CheckpointFolder
from nayer_core.running.fitting_batches import batches_that_fit
from nayer_core.running.run_state import Saver

Usable = Callable[[Adaptation, int], bool]  # what a saved state says of its run, and its steps


class Recovery:
    """Takes a run to its end over what can be got over.

    Args:
        run: as it was built, before it resumes: where no checkpoint is left it begins again from there.
        checkpoints: of this run alone; None keeps only the beginning.
        on_out_of_memory: "halve" goes on with smaller batches, "fail" names those that fit.
        after_return: called when the run has gone back to an earlier state and is about to go on.
    """

    def __init__(
        self,
        run: Distillation,
        checkpoints: CheckpointFolder | None = None,
        on_out_of_memory: OnOutOfMemory = "fail",
        after_return: Callable[[], None] = lambda: None,
    ):
        self.distillation = run
        self.checkpoints = checkpoints
        self.on_out_of_memory = on_out_of_memory
        self.after_return = after_return
        tensors, facts = run.state()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        self._beginning = Checkpoint(copies, facts)

    def run(
        self,
        *,
        checkpoint_seconds: float = 60.0,
        after_epoch: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Go on from where the run is; arguments and answer are those of `Distillation.run`.

        Raises:
            TrainingError: `diverged` after the last rollback, with the run back in its last good
                state; `device_out_of_memory`, with sizes that were tried and fit.
        """
        if self.checkpoints is not None and self.checkpoints.is_empty and self._steps_done > 0:
            self._save()  # a run from elsewhere has a state of its own to go back to

        def go_on() -> bool:
            return self.distillation.run(
                checkpoints=self.checkpoints,
                checkpoint_seconds=checkpoint_seconds,
                after_epoch=lambda: _measure(after_epoch),
                should_stop=should_stop,
            )

        while True:
            try:
                return do_within_memory(go_on)
            except DeviceFull:
                self._make_room()
            except TrainingError as error:
                if error.code is not ErrorCode.DIVERGED:
                    raise
                self._roll_back(error)

    @property
    def _steps_done(self) -> int:
        return self.distillation.progress.steps_done

    def _roll_back(self, error: TrainingError) -> None:
        run, before, diverged_at = self.distillation, self.distillation.adaptation, self._steps_done
        if before.rollbacks == MOST_ROLLBACKS:
            self._return(lambda *_: True)
            run.adopt(before)
            told = (
                f"{error.message} The run had gone back and on with smaller steps {MOST_ROLLBACKS} times. "
                f"What is left is its state after {self._steps_done} of {diverged_at} steps."
            )
            raise TrainingError(error.code, told, error.hint) from error
        self._return(before.should_return_to)
        told = (
            f"{error.message} The run goes back from step {diverged_at} to step {self._steps_done} and on "
            f"with both learning rates halved (rollback {before.rollbacks + 1} of {MOST_ROLLBACKS})."
        )
        run.emit(WarningEvent(code="rolled_back", message=told))
        self._go_on(before.with_smaller_steps(self._steps_done, told))

    def _make_room(self) -> None:
        run, before = self.distillation, self.distillation.adaptation
        give_back_unused(run.arithmetic.device)
        part, config = run.part, run.config_in_force
        size = config.synthesis_batch_size if part == "synthesis" else config.student_batch_size
        if (processes := run.synthesizer.processes.size) > 1:
            raise TrainingError(
                ErrorCode.DEVICE_OUT_OF_MEMORY,
                f"One of {processes} {run.arithmetic.device.type} devices has no room for its share of "
                f"{part}_batch_size {size}.",
                f"Lower config.{part}_batch_size or config.bank_capacity: with several processes batches are "
                "neither tried nor halved.",
            )
        spent = before.halvings(part) == MOST_HALVINGS or size // 2 < SMALLEST_BATCH
        if spent or self.on_out_of_memory == "fail":
            raise self._does_not_fit()
        told = (
            f"The {run.arithmetic.device.type} device has no room for {part}_batch_size {size} in epoch "
            f"{run.position.epoch + 1}; the run goes on with {size // 2}."
        )
        self._return(lambda *_: True)
        run.emit(WarningEvent(code="batch_halved", message=told))
        self._go_on(before.with_smaller_batches(part, told))

    def _return(self, usable: Usable) -> None:
        """Become the newest saved state that is usable, or what the run was at its beginning."""
        run, checkpoint = self.distillation, None
        if self.checkpoints is not None:
            checkpoint = self.checkpoints.go_back(
                run.bank,
                lambda facts: usable(
                    Adaptation.from_facts(facts["adaptation"]), sum(facts["steps_done"].values())
                ),
            )
        if checkpoint is None:
            run.bank.clear()
        began = run.began
        run.restore(checkpoint or self._beginning)
        run.began = began  # the time spent on the way that was left counts

    def _go_on(self, adaptation: Adaptation) -> None:
        self.distillation.adopt(adaptation)
        self._save()
        self.after_return()

    def _save(self) -> None:
        Saver(self.distillation, self.checkpoints, 0.0, self.distillation.emit).save()

    def _does_not_fit(self) -> TrainingError:
        run, config = self.distillation, self.distillation.config_in_force
        fitting = batches_that_fit(run)
        hint = "No smaller batch fits either: choose smaller networks or a smaller config.bank_capacity."
        if fitting is not None:
            hint = (
                f"Set config.synthesis_batch_size to {fitting[0]} and config.student_batch_size to "
                f'{fitting[1]}: both were tried here and fit. Or set on_out_of_memory to "halve".'
            )
        return TrainingError(
            ErrorCode.DEVICE_OUT_OF_MEMORY,
            f"The {run.arithmetic.device.type} device has no room for batches of "
            f"{config.synthesis_batch_size} (synthesis) and {config.student_batch_size} (student).",
            hint,
        )


def _measure(after_epoch: Callable[[], None]) -> None:
    try:
        do_within_memory(after_epoch)
    except DeviceFull:
        raise TrainingError(
            ErrorCode.DEVICE_OUT_OF_MEMORY,
            "The device has no room for what is measured after an epoch.",
            "Lower config.bank_capacity: the bank is held on the device.",
        ) from None
