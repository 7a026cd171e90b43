"""``accelerate launch``, as a script."""

from accelerate.commands.launch import main

if __name__ == "__main__":
    main()
