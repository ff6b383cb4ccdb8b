"""What the benchmark tools do: the op's and the models' speed beside that of what they replace."""
