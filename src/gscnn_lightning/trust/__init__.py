"""What files of others may say: checkpoints, and configs out of run folders, are data, and have nothing imported."""
