"""Every number of a method, with its unit and its source.

Sources: "Table 10" and "A.2" are those of the paper (Tran et al., CVPR 2024). "authors" is the value of their
published run, where the paper gives none or another (docs/algorithm.md lists each deviation).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

# Upper bounds keep sums and products of a stranger's numbers finite. The memory of a run is estimated
# (nayer_core/running/estimate.py) and compared with the limit of the service.
Count = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=2, le=16_384)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]

GeneratorName = Literal["published", "table8", "table9"]
GeneratorInput = Literal["lte", "one_hot", "noise", "concat", "sum"]
NoisyLayerKind = Literal["k_to_1", "one_to_one", "none"]
NoisyLayerArchitecture = Literal["A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["epoch", "step"]
Adversary = Literal["kl", "js"]
StatisticsScale = Literal["sum", "noise"]


class MethodConfig(BaseModel):
    """The fields of every method: epochs, a memory bank with its augmentation, and a student.

    Attributes:
        LEARNING_RATES: fields that are halved together when a run diverges.
        BATCH_SIZES: fields that can be halved, separately, when the device is full.
    """

    LEARNING_RATES: ClassVar[tuple[str, ...]] = ("student_lr", "student_lr_min")
    BATCH_SIZES: ClassVar[tuple[str, ...]] = ("student_batch_size",)

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        300, description="E: epochs with student steps. Warm-up comes on top (authors)."
    )
    student_steps: Count = Field(400, description="S: student updates an epoch (Table 10).")

    # The memory bank and its augmentation
    bank_capacity: Annotated[int, Field(ge=2, le=100_000_000)] = Field(
        400_000, description="Most synthetic images kept; the oldest give way (Table 5)."
    )
    crop_padding: Annotated[int, Field(ge=0, le=1024)] = Field(
        4, description="Pixels of padding before the random crop (authors)."
    )
    flip: bool = Field(True, description="Mirror half of the images; wrong for digits and text.")
    cutmix: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of student steps on images patched together in pairs."
    )

    procedural_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="Share of the student's images that are procedural, not the generator's, where the "
        "teacher has no BatchNorm (decision 0027); 0.5 was a gain for digits, and none for clothes.",
    )

    # The student
    student_batch_size: BatchSize = Field(512, description="Table 10.")
    student_lr: Rate = Field(0.2, description="SGD with momentum 0.9, cosine to the end (authors).")
    student_lr_min: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = Field(
        2e-4, description="Learning rate at the end (authors)."
    )
    student_lr_schedule: Schedule = Field(
        "epoch", description="Whether the cosine moves after each epoch (authors) or each step."
    )
    student_weight_decay: Weight = Field(1e-4, description="Authors.")
    student_averaging: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share that earlier steps keep in the running average of weights that becomes the "
        "student; 0 takes the last step's weights (authors).",
    )
    temperature: Annotated[float, Field(gt=0, le=1000)] = Field(
        20.0, description="Softening of both sides of the distillation loss (authors)."
    )

    attention_weight: Weight = Field(
        0.0,
        description="Weight in the student's loss of the distance between its attention maps and the "
        "teacher's; 0 compares logits alone (the paper).",
    )

    precision: Precision = Field(
        "auto", description="bf16 where the device computes in it, else fp32; fp16 with loss scaling."
    )


class DistillConfig(MethodConfig):
    """How NAYER distils one student: Algorithm 1 with Eq. 3, 5 and the distillation loss."""

    LEARNING_RATES: ClassVar[tuple[str, ...]] = (*MethodConfig.LEARNING_RATES, "generator_lr")
    BATCH_SIZES: ClassVar[tuple[str, ...]] = ("synthesis_batch_size", *MethodConfig.BATCH_SIZES)

    # The loops of Algorithm 1
    warmup_epochs: Annotated[int, Field(ge=0, le=10_000)] = Field(
        20, description="Epochs that only fill the memory bank (A.2)."
    )
    rounds_per_epoch: Count = Field(2, description="I: synthesis rounds an epoch (Table 10).")
    warmup_rounds_per_epoch: Count = Field(
        10, description="Synthesis rounds a warm-up epoch (authors; Tiny-ImageNet 20)."
    )
    generator_steps: Count = Field(30, description="g: generator updates a round (Table 10).")

    # Synthesis
    synthesis_batch_size: BatchSize = Field(400, description="Images a round makes (Table 10).")
    generator: GeneratorName = Field(
        "published",
        description="Architecture: the authors' own, Table 8 (cheaper) or Table 9 (large images).",
    )
    generator_width: Annotated[int, Field(ge=4, le=1024)] = Field(
        64, description="Channels of the generator's last hidden layer; earlier ones have twice."
    )
    noise_dim: Annotated[int, Field(ge=2, le=65_536)] = Field(
        1000, description="r: size of the noisy layer's output (section 3.3)."
    )
    generator_input: GeneratorInput = Field(
        "lte", description="What the noisy layer is given: ablations of Tables 4, 15 and 17."
    )
    input_noise: Literal["normal", "uniform"] = Field(
        "normal", description="Distribution of the noise in `noise`, `concat` and `sum` (Table 17)."
    )
    input_noise_scale: Weight = Field(1.0, description="beta of the sum lte + beta * noise (Table 4).")
    noisy_layer: NoisyLayerKind = Field(
        "k_to_1", description="Images that share a Linear: all classes once, one, or no layer (Table 4)."
    )
    noisy_layer_redraw: bool = Field(True, description="Whether every round redraws it (Table 4, woRI).")
    noisy_layer_architecture: NoisyLayerArchitecture = Field(
        "A3", description="BatchNorm and Linear; A1 is without BatchNorm (Table 12)."
    )
    generator_lr: Rate = Field(4e-3, description="Adam, betas 0.5 and 0.999, new each round (A.2).")
    generator_reset_every: Annotated[int, Field(ge=0, le=100_000)] = Field(
        10, description="Epochs until the generator is redrawn; 0 never redraws it (authors)."
    )
    images_of_last_steps: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0,
        description="Keep the images of a round's last n steps; 0 keeps the step of lowest loss (authors).",
    )
    drop_failed_rounds: bool = Field(
        False,
        description="Keep a round out of the memory bank if its label loss is no better than chance, ln K; "
        "the authors keep all.",
    )
    ce_weight: Weight = Field(0.5, description="alpha_cls of Eq. 5 (Table 10).")
    bn_weight: Weight = Field(10.0, description="alpha_bn of Eq. 5 (Table 10).")
    bn_scale: StatisticsScale = Field(
        "sum",
        description="The statistics term: a sum over layers (authors), or a mean over layers of its ratio to "
        "noise, which has the same size for every teacher (decision 0025).",
    )
    adv_weight: Weight = Field(1.33, description="alpha_adv of Eq. 5 (Table 10).")
    adversary: Adversary = Field(
        "kl", description="Divergence of the adversarial term: unbounded KL (Eq. 5), or Jensen-Shannon's."
    )
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="Share of earlier rounds in the matched statistics (authors)."
    )

    image_prior_weight: Weight = Field(
        0.3,
        description="Input statistics' weight where the teacher has no BatchNorm (decision 0027).",
    )
