"""Trees of /proc and /sys as real systems show them to a process, and where each layout comes from.

The mountinfo and cgroup lines have the form of the named source, with shortened container names; where a
source shows the lines but not the limits, the limits are round numbers as its tool would write them. `build`
writes one into a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
MIB = 1 << 20
UNLIMITED_V1 = "9223372036854771712"  # LONG_MAX rounded down to a page (kernel, mm/page_counter)


@dataclass(frozen=True)
class Tree:
    source: str
    files: Mapping[str, str]


def build(root: Path, files: Mapping[str, str]) -> Path:
    """Write the files, named as the process sees them, below `root`; a name that ends in / is a folder."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def machine(cpus: str = "0-7", memory: int = 32 * GIB) -> dict[str, str]:
    return {
        "/sys/devices/system/cpu/online": f"{cpus}\n",
        "/proc/meminfo": f"MemTotal:       {memory // 1024} kB\nMemFree:         1234567 kB\n",
    }


# Controllers and the hierarchies they are mounted in: most distributions, and one folder for each.
V1 = {"cpuset": "cpuset", "cpu": "cpu,cpuacct", "memory": "memory", "pids": "pids"}


def membership_v1(path: str, unified: str | None = None, together: Mapping[str, str] = V1) -> str:
    lines = [f"{n}:{names}:{path}" for n, names in enumerate(together.values(), start=2)]
    lines = [*reversed(lines), f"1:name=systemd:{path}", *([] if unified is None else [f"0::{unified}"])]
    return "".join(f"{line}\n" for line in lines)


def mounts_v1(root: str, top: str = "/sys/fs/cgroup", together: Mapping[str, str] = V1) -> str:
    lines = [f"703 702 0:99 / {top} ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755"]
    lines += [
        f"{n} 703 0:{n - 700} {root} {top}/{names} ro,nosuid,nodev,noexec,relatime master:{n - 720} "
        f"- cgroup cgroup rw,{names}"
        for n, names in enumerate(together.values(), start=733)
    ]
    return "".join(f"{line}\n" for line in lines)


def limits_v1(
    folder: str,
    *,
    top: str = "/sys/fs/cgroup",
    cpu: str = "cpu,cpuacct",
    quota: int = -1,
    memory: str | int = UNLIMITED_V1,
    hierarchical: str | int | None = None,
    cpus: str = "0-7",
) -> dict[str, str]:
    """One cgroup in all v1 hierarchies; `folder` is "" for the one at the mount points."""
    throttled = "nr_periods 20\nnr_throttled 4\nthrottled_time 2500000000\n"
    return {
        f"{top}/{cpu}{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{top}/{cpu}{folder}/cpu.cfs_period_us": "100000\n",
        f"{top}/{cpu}{folder}/cpu.stat": throttled,
        f"{top}/cpuset{folder}/cpuset.cpus": f"{cpus}\n",
        f"{top}/cpuset{folder}/cpuset.effective_cpus": f"{cpus}\n",
        f"{top}/memory{folder}/memory.limit_in_bytes": f"{memory}\n",
        f"{top}/memory{folder}/memory.usage_in_bytes": "7045120\n",
        f"{top}/memory{folder}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        f"{top}/memory{folder}/memory.stat": "cache 784113664\nrss 1703952384\n"
        f"hierarchical_memory_limit {memory if hierarchical is None else hierarchical}\n",
    }


MOUNT_V2 = "417 416 0:29 {root} {top} ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n"


def mount_v2(root: str = "/", top: str = "/sys/fs/cgroup") -> str:
    overlay = "411 380 0:63 / / rw,relatime - overlay overlay rw,lowerdir=/l\n"
    return overlay + MOUNT_V2.format(root=root, top=top)


def limits_v2(
    folder: str, *, cpu: str = "max", memory: str | int = "max", high: str | int = "max", cpus: str = "0-7"
) -> dict[str, str]:
    """One cgroup; `folder` is where it is seen."""
    return {
        f"{folder}/cpu.max": f"{cpu} 100000\n",
        f"{folder}/cpu.stat": "usage_usec 90\nuser_usec 60\nsystem_usec 30\n"
        "nr_periods 9\nnr_throttled 3\nthrottled_usec 1500000\n",
        f"{folder}/cpuset.cpus": "\n",
        f"{folder}/cpuset.cpus.effective": f"{cpus}\n",
        f"{folder}/memory.max": f"{memory}\n",
        f"{folder}/memory.high": f"{high}\n",
        f"{folder}/memory.current": "8155136\n",
        f"{folder}/memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n",
    }


# The v2 root cgroup has no cpu.max, memory.max and memory.high (cgroup-v2.rst).
ROOT_V2 = {
    "/sys/fs/cgroup/cpuset.cpus.effective": "0-7\n",
    "/sys/fs/cgroup/cpu.stat": "usage_usec 1000\n",
}

DOCKER = "/docker/136811d8fa11"
POD_V1 = "/kubepods/{qos}pod9a18ffb8-8513-11e7-b26e-7e29fbe2a5a3/d28e0087cf8f"
POD_SYSTEMD = "/kubepods.slice/{qos}-pod0057cc81_ea16_463a.slice/cri-containerd-e7364a949ee8.scope"
EACH = {"cpu": "cpu", "cpuacct": "cpuacct", "cpuset": "cpuset", "memory": "memory", "pids": "pids"}


def kubernetes_v1(path: str, **limits: str | int) -> dict[str, str]:
    return {
        **machine(),
        "/proc/self/cgroup": membership_v1(path, unified="/system.slice/containerd.service"),
        "/proc/self/mountinfo": mounts_v1(path),
        **limits_v1("", **limits),  # type: ignore[arg-type]
    }


def kubernetes_v2(**limits: str | int) -> dict[str, str]:
    return {
        **machine(),
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": mount_v2(),
        **limits_v2("/sys/fs/cgroup", **limits),  # type: ignore[arg-type]
    }


def slices(service: str, above: str, **limits: str | int) -> dict[str, str]:
    return {
        **machine(),
        "/proc/self/cgroup": f"0::{above}{service}\n",
        "/proc/self/mountinfo": mount_v2(),
        **ROOT_V2,
        **limits_v2(f"/sys/fs/cgroup{above}", **limits),  # type: ignore[arg-type]
        **limits_v2(f"/sys/fs/cgroup{above}{service}", cpu="400000", memory=8 * GIB),
    }


TREES: dict[str, Tree] = {
    "this machine": Tree(
        "observed here: a virtual machine whose sandbox mounts every v1 controller by itself, with "
        "only memory nested",
        {
            **machine("0-1", 24684084 * 1024),
            "/proc/self/cgroup": "9:name=systemd:/\n8:pids:/\n7:blkio:/\n6:freezer:/\n5:devices:/\n"
            "4:memory:/process_api/2fab21e1c515\n3:cpuset:/\n2:cpuacct:/\n1:cpu:/\n0::/\n",
            "/proc/self/mountinfo": "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resv_strict\n"
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
            "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
            "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
            "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
            "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
            "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
            **limits_v1("", cpu="cpu", cpus="0-1"),
            "/sys/fs/cgroup/memory/process_api/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
            "/sys/fs/cgroup/memory/process_api/2fab21e1c515/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
            "/sys/fs/cgroup/memory/process_api/2fab21e1c515/memory.usage_in_bytes": "202731520\n",
            "/sys/fs/cgroup/unified/cgroup.controllers": "\n",
        },
    ),
    "docker v1, observed": Tree(
        "observed: Docker 20.10 (Debian) on this machine, run --cpus 1.5 --memory 256m --cpuset-cpus "
        "0; the mount's root is the container's cgroup, and the path is the host's",
        {
            **machine("0-1", 24684084 * 1024),
            "/proc/self/cgroup": membership_v1("/docker/94a2312328a3", "/docker/94a2312328a3", EACH),
            "/proc/self/mountinfo": mounts_v1("/docker/94a2312328a3", together=EACH),
            **limits_v1("", cpu="cpu", quota=150000, memory=256 * MIB, cpus="0"),
        },
    ),
    "docker v1": Tree(
        "google/gvisor runsc/cgroup/cgroup_test.go (dindMountinfo) for the mounts, docker/for-linux "
        "issue 1293 for /proc/self/cgroup, whose 0:: line names another cgroup than the rest",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1(DOCKER, unified="/system.slice/containerd.service"),
            "/proc/self/mountinfo": mounts_v1(DOCKER),
            **limits_v1("", quota=250000, memory=2 * GIB),
        },
    ),
    "docker v1, private namespace": Tree(
        "observed: Docker 20.10 on this machine, run --cgroupns private --cpus 0.5",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/", "/"),
            "/proc/self/mountinfo": mounts_v1("/"),
            **limits_v1("", quota=50000),
        },
    ),
    "docker v1, host's tree mounted": Tree(
        "observed: Docker 20.10 on this machine, run --cgroup-parent /docker/outer -v "
        "/sys/fs/cgroup:/host/cgroup:ro; only there the outer cgroup's limits are seen (the use: "
        "moby/moby issue 12394)",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/docker/outer/2cf01c117565"),
            "/proc/self/mountinfo": mounts_v1("/docker/outer/2cf01c117565") + mounts_v1("/", "/host/cgroup"),
            **limits_v1("", quota=200000),
            **limits_v1("", top="/host/cgroup"),
            **limits_v1("/docker/outer", top="/host/cgroup", quota=100000, memory=GIB),
            **limits_v1("/docker/outer/2cf01c117565", top="/host/cgroup", quota=200000),
        },
    ),
    "v1, path of the host, mount shows the container": Tree(
        "sosy-lab/benchexec issue 289 and OpenJDK's rule for it: the path is not below the mount, its"
        " end may be",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/docker/b84a3edf7712/inner"),
            "/proc/self/mountinfo": mounts_v1("/"),
            **limits_v1("", quota=300000, memory=4 * GIB),
            **limits_v1("/inner", quota=120000),
        },
    ),
    "docker v2": Tree(
        "elastic/apm-agent-java pull 2352: a container's mountinfo (0:30 / /sys/fs/cgroup ro,... - "
        "cgroup2 cgroup rw); the private namespace is Docker's default on v2 (docs.docker.com, "
        "Runtime metrics)",
        {
            **machine(),
            "/proc/self/cgroup": "0::/\n",
            "/proc/self/mountinfo": mount_v2(),
            **limits_v2("/sys/fs/cgroup", cpu="150000", memory=512 * MIB, cpus="0-3"),
        },
    ),
    "docker v2, host namespace": Tree(
        "google/nsjail pull 219: docker run --cgroupns=host --privileged, path /docker/ID with the "
        "whole tree mounted",
        {
            **machine(),
            "/proc/self/cgroup": "0::/docker/d71c9d0cd816\n",
            "/proc/self/mountinfo": mount_v2().replace(" ro,", " rw,"),
            **ROOT_V2,
            **limits_v2("/sys/fs/cgroup/docker"),
            **limits_v2("/sys/fs/cgroup/docker/d71c9d0cd816", cpu="50000", memory=100 * MIB),
        },
    ),
    "docker v2, host namespace, own cgroup mounted": Tree(
        "kernel cgroup-v2.rst, Namespace, and runc's bind mount where there is no namespace: mount "
        "root and path are both /system.slice/docker-ID.scope (paths: docs.docker.com, Runtime "
        "metrics, systemd driver)",
        {
            **machine(),
            "/proc/self/cgroup": "0::/system.slice/docker-1e0bf73d8279.scope\n",
            "/proc/self/mountinfo": mount_v2("/system.slice/docker-1e0bf73d8279.scope"),
            **limits_v2("/sys/fs/cgroup", cpu="75000", memory=GIB),
        },
    ),
    "docker v2 with a v1 net_cls": Tree(
        "coder/clistat issue 25: a v1 controller beside the unified tree that holds all others",
        {
            **machine(),
            "/proc/self/cgroup": "1:net_cls:/\n0::/\n",
            "/proc/self/mountinfo": mount_v2()
            + "418 417 0:40 / /sys/fs/cgroup/net_cls ro,nosuid,relatime - cgroup cgroup rw,net_cls\n",
            **limits_v2("/sys/fs/cgroup", cpu="200000"),
        },
    ),
    "v2, beside its namespace": Tree(
        "neuvector/neuvector share/system/cgroup_test.go: openSUSE Tumbleweed, path and mount root "
        "both /../docker-ID.scope, as read by a process of a sibling's namespace",
        {
            **machine(),
            "/proc/self/cgroup": "0::/../docker-1f1d6e2d4940.scope/web\n",
            "/proc/self/mountinfo": mount_v2("/../docker-1f1d6e2d4940.scope"),
            **limits_v2("/sys/fs/cgroup", cpu="300000"),
            **limits_v2("/sys/fs/cgroup/web", memory=GIB),
        },
    ),
    "namespace without a mount of its own": Tree(
        "observed: unshare --cgroup on this machine; the namespace's root is two cgroups below what "
        "is mounted, with names that nothing tells",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/"),
            "/proc/self/mountinfo": mounts_v1("/").replace(
                " / /sys/fs/cgroup/memory", " /../.. /sys/fs/cgroup/memory"
            ),
            **limits_v1(""),
        },
    ),
    "kubernetes v1 guaranteed": Tree(
        "systemd driver, containerd: dash0hq's OpenTelemetry distribution, pod UID detector test "
        "(kubepods-podUID.slice directly below kubepods.slice)",
        kubernetes_v1(
            POD_SYSTEMD.format(qos="kubepods"), quota=200000, memory=GIB, hierarchical=GIB, cpus="2-3"
        ),
    ),
    "kubernetes v1 burstable": Tree(
        "cgroupfs driver, kubepods/burstable/podUID/ID (kubernetes.io, Pod QoS; kubelet's cgroup "
        "names); only the pod's cgroup, which the container cannot see, is limited in memory: "
        "memory.stat tells (cloudfoundry/gosigar pull 57, number from cockroachdb pkg/util/cgroup "
        "test data)",
        kubernetes_v1(POD_V1.format(qos="burstable/"), quota=150000, hierarchical=2936016896),
    ),
    "kubernetes v1 besteffort": Tree(
        "cgroupfs driver: moby/moby issue 34584 and cockroachdb pkg/util/cgroup test data",
        kubernetes_v1(POD_V1.format(qos="besteffort/")),
    ),
    "kubernetes v2 guaranteed": Tree(
        "neuvector/neuvector share/system/cgroup_test.go (a pod probing itself, 0::/ with "
        "/sys/fs/cgroup from /); limits as kubernetes.io describes: Resource Management for Pods, "
        "Control CPU Management Policies (static)",
        kubernetes_v2(cpu="200000", memory=2 * GIB, cpus="2-3"),
    ),
    "kubernetes v2 burstable": Tree(
        "kubernetes.io, Pod QoS: memory.high below the limit under the MemoryQoS feature gate",
        kubernetes_v2(memory=4 * GIB, high=3 * GIB),
    ),
    "kubernetes v2 besteffort": Tree("kubernetes.io, Pod QoS: no limits at all", kubernetes_v2()),
    "kubernetes v2 beside its namespace": Tree(
        "neuvector/neuvector share/system/cgroup_test.go: Docker 20.10 on Ubuntu 21.10, best-effort "
        "pod, path and mount root both /../../kubepods-besteffort-podUID.slice/docker-ID.scope",
        {
            **machine(),
            "/proc/self/cgroup": "0::/../../kubepods-besteffort-podfd69.slice/docker-2cc65c162ca1.scope\n",
            "/proc/self/mountinfo": mount_v2(
                "/../../kubepods-besteffort-podfd69.slice/docker-2cc65c162ca1.scope"
            ),
            **limits_v2("/sys/fs/cgroup"),
        },
    ),
    "kubernetes v2 host namespace": Tree(
        "privileged pod, systemd driver: path as in the kernel's OOM reports "
        "(oom_memcg=/kubepods.slice/kubepods-burstable.slice/...); the pod's cgroup is the tightest",
        {
            **machine(),
            "/proc/self/cgroup": "0::/kubepods.slice/kubepods-burstable.slice/"
            "kubepods-burstable-pod0057.slice/cri-containerd-e7364.scope\n",
            "/proc/self/mountinfo": mount_v2(),
            **ROOT_V2,
            **limits_v2("/sys/fs/cgroup/kubepods.slice", memory=30 * GIB),
            **limits_v2("/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice"),
            **limits_v2(
                "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0057.slice",
                cpu="60000",
                memory=600 * MIB,
            ),
            **limits_v2(
                "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0057.slice/"
                "cri-containerd-e7364.scope"
            ),
        },
    ),
    "systemd slice v2": Tree(
        "systemd.resource-control(5): CPUQuota=150% and MemoryMax= on the slice, CPUQuota=400% on the"
        " service; the miss of a tighter ancestor: golang/go issue 81180",
        slices("/api.service", "/apps.slice", cpu="150000", memory=3 * GIB),
    ),
    "systemd slice v1": Tree(
        "as systemd slice v2, on the legacy hierarchy of CentOS 7 and Ubuntu 20.04 "
        "(systemd.resource-control(5): cpu.cfs_quota_us); a service that is in the root of cpuset",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/apps.slice/api.service").replace(
                "cpuset:/apps.slice/api.service", "cpuset:/"
            ),
            "/proc/self/mountinfo": mounts_v1("/"),
            **limits_v1(""),
            **limits_v1("/apps.slice", quota=150000, memory=3 * GIB),
            **limits_v1("/apps.slice/api.service", quota=400000),
        },
    ),
    "slurm step, leaf mounted": Tree(
        "NVIDIA/enroot issue 169: only the leaf, which has no limit, is mounted into the container; "
        "nothing shows the step's 4194304000 bytes",
        {
            **machine(),
            "/proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_4749/step_0/user/task_0\n",
            "/proc/self/mountinfo": mount_v2("/system.slice/slurmstepd.scope/job_4749/step_0/user/task_0"),
            **limits_v2("/sys/fs/cgroup"),
        },
    ),
    "lxc v2": Tree(
        "canonical/lxd issue 11000 (none /sys/fs/cgroup cgroup2, lxcfs over /proc/meminfo and "
        "cpu/online); MemTotal and the CPUs online are made from the limits by lxcfs; the container "
        "runs its own systemd",
        {
            **machine("2-3", 2 * GIB),
            "/proc/self/cgroup": "0::/system.slice/api.service\n",
            "/proc/self/mountinfo": "1200 1100 0:50 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime "
            "- cgroup2 none rw\n1201 1100 0:51 /proc/meminfo /proc/meminfo rw,nosuid,nodev,relatime "
            "- fuse.lxcfs lxcfs rw,user_id=0,group_id=0,allow_other\n",
            **limits_v2("/sys/fs/cgroup", memory=2 * GIB, cpus="2-3"),
            **limits_v2("/sys/fs/cgroup/system.slice", cpus="2-3"),
            **limits_v2("/sys/fs/cgroup/system.slice/api.service", cpus="2-3"),
        },
    ),
    "lxc v1": Tree(
        "lxc/lxc issue 2407: the log of a container without cgroup namespace; below each controller's"
        " folder only the container's own cgroup is mounted, at /sys/fs/cgroup/CONTROLLER/lxc/NAME",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/lxc/web", together=EACH),
            "/proc/self/mountinfo": "".join(
                f"{n} 250 0:{n} /lxc/web /sys/fs/cgroup/{name}/lxc/web rw,relatime "
                f"- cgroup cgroup rw,{name}\n"
                for n, name in enumerate(EACH, start=260)
            ),
            **limits_v1("/lxc/web", cpu="cpu", quota=100000, memory=256 * MIB, cpus="0"),
        },
    ),
    "hybrid": Tree(
        "systemd's hybrid layout: openjdk CgroupSubsystemFactory test (mntInfoHybridStub): v1 "
        "controllers, and a unified tree without any",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/user.slice", unified="/user.slice/session-3.scope"),
            "/proc/self/mountinfo": mounts_v1("/")
            + "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:5 "
            "- cgroup2 none rw\n",
            **limits_v1(""),
            **limits_v1("/user.slice", quota=350000, memory=5 * GIB),
            "/sys/fs/cgroup/unified/cgroup.controllers": "\n",
            "/sys/fs/cgroup/unified/user.slice/session-3.scope/cgroup.controllers": "\n",
        },
    ),
    "v1, rootfs of another container": Tree(
        "KimMachineGun/automemlimit testdata v1_conflicting_mounts and uber-go/automaxprocs testdata "
        "mountinfo: the same cgroup mounted twice, and a single file of it bind-mounted",
        {
            **machine(),
            "/proc/self/cgroup": "5:memory:/workload\n",
            "/proc/self/mountinfo": "41 30 0:37 /workload /run/containerd/rootfs/sys/fs/cgroup/memory "
            "rw,relatime - cgroup cgroup rw,memory\n"
            "42 30 0:38 /workload /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
            "43 30 0:38 /workload/memory.stat /sys/fs/cgroup/stat rw,relatime shared:8 "
            "- cgroup cgroup rw,memory\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "3221225472\n",
            "/sys/fs/cgroup/stat": "hierarchical_memory_limit 3221225472\n",
        },
    ),
    "controllers not mounted": Tree(
        "cgroups(7): membership is listed also where nothing is mounted, as in a chroot with /proc alone",
        {
            **machine(),
            "/proc/self/cgroup": membership_v1("/docker/136811d8fa11"),
            "/proc/self/mountinfo": "20 1 0:4 / /proc rw - proc proc rw\n",
        },
    ),
    "no cgroups": Tree(
        "cgroups(7): a kernel without CONFIG_CGROUPS has no /proc/self/cgroup",
        {**machine("0-3"), "/proc/self/mountinfo": "20 1 0:4 / /proc rw - proc proc rw\n"},
    ),
}
