# The shell's `conda`: with it, `conda activate` changes the shell that reads this file. For sh, bash and zsh.
export CONDA_EXE='@ROOT@/bin/conda'
conda() {
  case "${1:-}" in
  activate | deactivate)
    __conda_code="$("$CONDA_EXE" shell.posix "$@")" || return $?
    eval "$__conda_code"
    unset __conda_code
    hash -r 2>/dev/null || :
    ;;
  *) "$CONDA_EXE" "$@" ;;
  esac
}
mamba() { conda "$@"; }
if [ -z "${CONDA_SHLVL:-}" ]; then
  export CONDA_SHLVL=0 PATH='@ROOT@/condabin'"${PATH:+:$PATH}"
fi
