"""Names of the files that a run writes for its client: the same in the run's folder and over HTTP."""

STUDENT = "student.safetensors"
PARTIAL_STUDENT = "partial_student.safetensors"  # of a run that diverged after its last rollback
MODEL_CARD = "model_card.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.png"
REPORT = "report.json"  # of `inspect`
