#!/bin/sh
# Usage: install_deps.sh [build|demo|test|lint|fuzz]    (default: build)
# Installs what is missing for that purpose: Debian packages (as root; otherwise prints the command), and for `test` the
# Python packages of tools/requirements.txt in build/venv. Does nothing, in a fraction of a second, when all is there.
set -e
cd "$(dirname "$0")/.."
purpose=${1:-build}
build="gcc libc6-dev make binutils llvm-19-dev lld-19 libprotobuf-c-dev protobuf-c-compiler libcjson-dev libzip-dev
  libyaml-dev libssl-dev libsqlite3-dev"
test="g++ clang-19 libcmocka-dev python3 python3-venv qemu-user qemu-system-arm gcc-arm-none-eabi gcc-aarch64-linux-gnu
  gcc-riscv64-linux-gnu libnewlib-arm-none-eabi libc6-dev-arm64-cross libc6-dev-riscv64-cross valgrind libmagickwand-6.q16-6"
fuzz="clang-19 libclang-rt-19-dev libstdc++-12-dev"
lint="clang-19 clang-format-19 clang-tidy-19 cppcheck python3 libcmocka-dev"
case $purpose in
  build | demo) want=$build ;;
  test) want="$build $test" ;;
  lint) want="$build $lint" ;;
  fuzz) want="$build $fuzz" ;;
  *) echo "usage: install_deps.sh [build|demo|test|lint|fuzz]" >&2; exit 2 ;;
esac

missing=
if command -v dpkg-query > /dev/null; then
  have=" $(dpkg-query -W -f '${Package}/${db:Status-Status} ' $want 2> /dev/null || true)"
  for p in $want; do
    case $have in *" $p/installed "*) ;; *) missing="$missing $p" ;; esac
  done
else
  echo "install_deps.sh: no dpkg here; these Debian packages, or their like, must be present:" $want >&2
fi
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "missing packages; install them with:" >&2
    echo "  sudo apt-get install$missing" >&2
    exit 1
  fi
  echo "installing$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends $missing > /dev/null
fi

if [ "$purpose" = test ]; then
  venv=${VENV:-build/venv}
  if ! cmp -s tools/requirements.txt "$venv/requirements.txt"; then
    echo "installing the packages of tools/requirements.txt in $venv"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
    "$venv/bin/pip" -qq install --disable-pip-version-check -r tools/requirements.txt
    cp tools/requirements.txt "$venv/requirements.txt"
  fi
fi
