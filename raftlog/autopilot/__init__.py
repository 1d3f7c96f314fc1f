"""The leader sees to it that the right servers are members: who came, who left, who failed, and who may vote."""
