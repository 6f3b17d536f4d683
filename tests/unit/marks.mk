UNIT_marks :=
