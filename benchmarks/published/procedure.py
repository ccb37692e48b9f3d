"""The loop: rounds of synthesis, then student steps, epoch by epoch. The package lists what is odd."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.published import image_folder
from benchmarks.published.generator import NoisyLayers, PublishedGenerator
from benchmarks.published.statistics import watch

GENERATOR_LIFE = 10  # epochs
CROP_PADDING = 4


@dataclass(frozen=True)
class ProcedureSettings:
    """The numbers of a run, under the names that `DistillConfig` has for them."""

    epochs: int
    warmup_epochs: int
    warmup_rounds_per_epoch: int
    rounds_per_epoch: int
    generator_steps: int
    student_steps: int
    synthesis_batch_size: int
    student_batch_size: int
    student_lr: float = 0.2
    student_lr_min: float = 2e-4
    student_weight_decay: float = 1e-4
    temperature: float = 20.0
    generator_lr: float = 4e-3
    ce_weight: float = 0.5
    bn_weight: float = 10.0
    adv_weight: float = 1.33


@dataclass
class ProcedureOutcome:
    """The result of a run.

    Attributes:
        seconds: of the procedure, without measuring accuracy.
        accuracies: of the student after each epoch that trained it.
        complete: whether the run came to its end.
    """

    seconds: float = 0.0
    accuracies: list[float] = field(default_factory=list)
    complete: bool = False

    @property
    def best(self) -> float:
        """The authors' number: the best epoch on the test set."""
        return max(self.accuracies, default=0.0)


class Procedure:
    """One run.

    Args:
        teacher: in eval mode; gets hooks that stay and gradients that nobody reads.
        student: freshly initialised.
        embeddings: (K, dim) of the class names.
        mean: of the teacher's training images, by channel.
        std: likewise.
        image_size: side in pixels.
        settings: the numbers.
        folder: where the PNG files go; should be empty.
        loader_processes: that decode them.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        embeddings: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        image_size: int,
        settings: ProcedureSettings,
        folder: Path,
        loader_processes: int = image_folder.LOADER_PROCESSES,
    ):
        self.teacher, self.student, self.embeddings = teacher, student, embeddings
        self.mean, self.std, self.image_size = mean, std, image_size
        self.settings, self.folder, self.loader_processes = settings, folder, loader_processes
        self.hooks = watch(teacher)
        self.rounds_done = 0
        self.optimizer = torch.optim.SGD(
            student.parameters(),
            lr=settings.student_lr,
            momentum=0.9,
            weight_decay=settings.student_weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=settings.epochs, eta_min=settings.student_lr_min
        )

    def run(
        self, measure: Callable[[], float], report: Callable[[str], None], max_seconds: float
    ) -> ProcedureOutcome:
        """Run to the end, or to the first round or epoch that ends after `max_seconds`."""
        outcome, settings, began, measuring = ProcedureOutcome(), self.settings, time.perf_counter(), 0.0
        for epoch in range(settings.warmup_epochs + settings.epochs):
            for _ in self._epoch(epoch):
                outcome.seconds = time.perf_counter() - began - measuring
                if outcome.seconds > max_seconds:
                    return outcome
            if epoch >= settings.warmup_epochs:
                paused = time.perf_counter()
                outcome.accuracies.append(measure())
                measuring += time.perf_counter() - paused
                report(f"epoch {epoch + 1}  {outcome.seconds:.0f} s  {outcome.accuracies[-1]:.4f}")
            else:
                report(f"epoch {epoch + 1}  {outcome.seconds:.0f} s  warm-up")
        outcome.complete = True
        return outcome

    def _epoch(self, epoch: int) -> Iterator[None]:
        """One epoch; hands control back after each round and student step."""
        settings = self.settings
        warming_up = epoch < settings.warmup_epochs
        if epoch % GENERATOR_LIFE == 0 or (epoch - settings.warmup_epochs) % GENERATOR_LIFE == 0:
            self._new_generator()
        self.teacher.eval()
        self.student.eval()
        batches: Iterator[Tensor] = iter(())
        for _ in range(settings.warmup_rounds_per_epoch if warming_up else settings.rounds_per_epoch):
            images = self._synthesize(adversarial=not warming_up)
            image_folder.add(self.folder, images, self.rounds_done)
            self.rounds_done += 1
            bank = image_folder.ImageFolder(self.folder, self.mean, self.std, self.image_size)
            batches = image_folder.endless(bank, settings.student_batch_size, self.loader_processes)
            self.student.train()  # inside the loop: oddity 9
            yield
        if warming_up:
            return
        for _ in range(settings.student_steps):
            self._student_step(next(batches).to(self.embeddings.device))
            yield
        self.schedule.step()

    def _new_generator(self) -> None:
        num_classes, embedding_dim = self.embeddings.shape
        batch_size, device = self.settings.synthesis_batch_size, self.embeddings.device
        self.generator = PublishedGenerator(self.image_size).to(device).train()
        self.noisy_layers = NoisyLayers(embedding_dim, num_classes, batch_size).to(device).train()

    def _labels(self) -> Tensor:
        """Ordered sweeps over the classes, and random ones for the rest of the batch."""
        num_classes = len(self.embeddings)
        sweeps, rest = divmod(self.settings.synthesis_batch_size, num_classes)
        return torch.cat([torch.arange(num_classes).repeat(sweeps), torch.randint(num_classes, (rest,))])

    def _synthesize(self, *, adversarial: bool) -> Tensor:
        settings = self.settings
        self.noisy_layers.redraw()
        parameters = [*self.generator.parameters(), *self.noisy_layers.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=settings.generator_lr, betas=(0.5, 0.999))
        labels = self._labels().to(self.embeddings.device)
        embeddings = self.embeddings[labels]
        best, best_images = float("inf"), torch.empty(0)
        for _ in range(settings.generator_steps):
            images = self.generator(self.noisy_layers(embeddings))
            inputs = self._augmented(images)
            teacher_logits = self.teacher(inputs)
            cross_entropy = F.cross_entropy(teacher_logits, labels)
            statistics = torch.stack([hook.distance for hook in self.hooks]).sum()
            provoked = self._adversarial(inputs, teacher_logits) if adversarial else torch.zeros(())
            loss = (
                settings.ce_weight * cross_entropy
                + settings.bn_weight * statistics
                + settings.adv_weight * provoked.to(cross_entropy.device)
            )
            parts = [loss.item(), cross_entropy.item(), statistics.item(), provoked.item()]
            if parts[0] < best or not len(best_images):
                best, best_images = parts[0], images.detach().clone()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for hook in self.hooks:
            hook.end_round()
        return best_images

    def _adversarial(self, inputs: Tensor, teacher_logits: Tensor) -> Tensor:
        """Minus KL(T || S) where both name the same class; the mean runs over all images."""
        student_logits = self.student(inputs)
        agreed = (student_logits.argmax(1) == teacher_logits.argmax(1)).float()
        divergence = F.kl_div(
            F.log_softmax(student_logits, 1), F.softmax(teacher_logits, 1), reduction="none"
        )
        provoked: Tensor = -(divergence.sum(1) * agreed).mean()
        return provoked

    def _augmented(self, images: Tensor) -> Tensor:
        """Crop, mirror and normalise, image by image."""
        padded = F.pad(images, (CROP_PADDING,) * 4)
        offsets = torch.randint(2 * CROP_PADDING + 1, (len(images), 2)).tolist()
        mirrored = (torch.rand(len(images)) < 0.5).tolist()
        cropped = []
        for image, (y, x), mirror in zip(padded, offsets, mirrored, strict=True):
            crop = image[:, y : y + self.image_size, x : x + self.image_size]
            cropped.append(crop.flip(2) if mirror else crop)
        mean = images.new_tensor(self.mean).view(1, -1, 1, 1)
        std = images.new_tensor(self.std).view(1, -1, 1, 1)
        return (torch.stack(cropped) - mean) / std

    def _student_step(self, images: Tensor) -> None:
        temperature = self.settings.temperature
        with torch.no_grad():
            teacher_logits = self.teacher(images)
        loss = F.kl_div(
            F.log_softmax(self.student(images) / temperature, 1),
            F.softmax(teacher_logits / temperature, 1),
            reduction="batchmean",
        )
        self.optimizer.zero_grad()
        (loss * temperature**2).backward()
        self.optimizer.step()
