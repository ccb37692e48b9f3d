"""All changes of a job's row, as named steps. No other code assigns to a row; a test checks that.

submission  a request becomes a job
requests    a client requests to cancel, pause or resume
claims      a worker takes a job, passes it on, or hands it back
endings     a job succeeds, fails or is cancelled
progress    phase, progress, metrics and checkpoints of a run
files       which stored files belong to the job
steps       the two writes that all of these are made of

Each function works on a row that its caller has locked, in the caller's transaction.
"""
