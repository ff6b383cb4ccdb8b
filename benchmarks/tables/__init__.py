"""The paper's tables beside this project's figures."""
