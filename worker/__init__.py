"""The queue edge: claims jobs, runs the core as child processes, keeps rows and files in step."""
