# Prints the medians of *.runs, and their ratios beside the goals.
FILENAME ~ /\.runs$/ {
  name = FILENAME
  gsub(/^\.\/|\.runs$/, "", name)
  if (!(name in count)) names[++last] = name
  n = ++count[name]
  wall[name, n] = $1; cpu[name, n] = $2 + $3; mib[name, n] = $4 / 1024
}
$1 == "rchar:" { read_bytes = $2 }
$1 == "size" { sub(/^\.\//, "", $2); size[$2] = $3 }
function median(of, name,    i, j, n, sorted, swap) {
  n = count[name]
  for (i = 1; i <= n; i++) sorted[i] = of[name, i]
  for (i = 2; i <= n; i++)
    for (j = i; j > 1 && sorted[j - 1] > sorted[j]; j--) {
      swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap
    }
  return sorted[int((n + 1) / 2)]
}
function row(label, value, goal) {
  printf "%-54s %9.3f  goal %8.3f  %s\n", label, value, goal, value <= goal ? "met" : "missed"
}
END {
  for (i = 1; i <= last; i++) {
    name = names[i]
    W[name] = median(wall, name); C[name] = median(cpu, name); M[name] = median(mib, name)
    printf "%-12s %8.2f s wall %8.2f s CPU %7.0f MiB\n", name, W[name], C[name], M[name]
  }
  print ""
  row("size / tar | xz -6", size["b.vab"] / size["tar.xz"], 1)
  row("build CPU / tar | xz -6", C["build"] / C["pack"], 1)
  row("build wall / tar | xz -6", W["build"] / W["pack"], 1.05)
  row("build MiB", M["build"], 64 + 170 * threads)
  row("unpack wall / xz | tar", W["unpack"] / W["pipe"], 0.65)
  row("unpack wall / unsquashfs", W["unpack"] / W["squash"], 0.65)
  row("unpack wall / ((decode + write) CPU / threads)", W["unpack"] * threads / (C["decode"] + C["write"]), 1.15)
  row("unpack CPU / xz | tar", C["unpack"] / C["pipe"], 0.8)
  row("unpack MiB", M["unpack"], 64 + 24 * threads)
  for (few = 1; few <= 4; few *= 2)
    row("unpack MiB, " few " threads (" W["unpack-" few] " s)", M["unpack-" few], 64 + 24 * few)
  row("stream wall / file", W["stream"] / W["unpack"], 1.05)
  row("verify wall / sha256sum", W["verify"] / W["sha256sum"], 1)
  row("read for one file / bundle", read_bytes / size["b.vab"], 0.2)
  row("zstd size / tar | zstd -19 --long=27", size["z.vab"] / size["tar.zst"], 1)
  row("zstd unpack wall / xz | tar", W["zstd"] / W["pipe"], 0.22)
  row("zstd unpack wall / ((decode + write) CPU / threads)", W["zstd"] * threads / (C["zstd-decode"] + C["write"]), 1.15)
  row("zstd unpack wall / zstd | tar", W["zstd"] / W["zstd-pipe"], 1)
  if ("build-best" in W) {
    row("best size / tar | xz -9e", size["best.vab"] / size["tar9.xz"], 1)
    row("best build MiB", M["build-best"], 64 + 420 * threads)
    row("best unpack MiB", M["unpack-best"], 64 + 64 * threads)
  }
}
