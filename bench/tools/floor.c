/* floor ID LIMIT ROOTFS PROG ARGS...: the kernel's work for one `run` of the default bundle, and nothing else: namespaces, cgroups,
 * mounts, masks, pivot_root, execve, wait, removal of the cgroups. All of it is hard-coded: no configuration is read, no state kept,
 * no protocol spoken, no error explained (the exit status is the step that failed). LIMIT: memory in bytes, or - for none.
 *
 * HIERARCHIES, set by whoever compiles this, are the host's cgroup v1 hierarchies; without it the host has cgroup v2 alone.
 * On v1 the child enters each hierarchy by writing 0 to `tasks`: for the writing thread alone the kernel takes no global lock, and so
 * waits for no RCU grace period (8 to 15 ms). On v2 it is born inside (CLONE_INTO_CGROUP).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, text, strlen(text));
		close(fd);
	}
}

#define IN(hierarchy, file) (snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s/%s", hierarchy, id, file), path)
static char path[512];

#ifdef HIERARCHIES
static const char *hierarchies[] = {HIERARCHIES, 0};
static int tasks[32];

static void make_cgroups(const char *id, const char *limit, struct clone_args *args)
{
	(void)args;
	for (int i = 0; hierarchies[i]; i++)
		mkdir(IN(hierarchies[i], ""), 0755);
	put(IN("cpuset", "cpuset.cpus"), "0");
	put(IN("cpuset", "cpuset.mems"), "0");
	for (int i = 0; hierarchies[i]; i++)
		tasks[i] = open(IN(hierarchies[i], "tasks"), O_WRONLY | O_CLOEXEC);
	put(IN("devices", "devices.deny"), "a");
	put(IN("devices", "devices.allow"), "c 1:3 rwm");
	if (*limit != '-')
		put(IN("memory", "memory.limit_in_bytes"), limit);
}

static void enter_cgroups(void)
{
	for (int i = 0; hierarchies[i]; i++)
		if (write(tasks[i], "0", 1) != 1)
			_exit(20 + i);
}

static void remove_cgroups(const char *id)
{
	for (int i = 0; hierarchies[i]; i++)
		rmdir(IN(hierarchies[i], ""));
}
#else
static void make_cgroups(const char *id, const char *limit, struct clone_args *args)
{
	/* A device program that lets all pass: r0 = 1; exit. */
	static const struct bpf_insn program[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 1}, {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = 2, .insns = (__u64)program, .license = (__u64) "GPL"};
	union bpf_attr attach = {.attach_type = BPF_CGROUP_DEVICE, .attach_flags = BPF_F_ALLOW_MULTI};

	mkdir(IN("", ""), 0755);
	int dir = open(IN("", ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	attach.target_fd = dir;
	attach.attach_bpf_fd = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
	syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
	if (*limit != '-')
		put(IN("", "memory.max"), limit);
	args->flags |= CLONE_INTO_CGROUP;
	args->cgroup = dir;
}

static void enter_cgroups(void)
{
}

static void remove_cgroups(const char *id)
{
	rmdir(IN("", ""));
}
#endif

static void mount_all(const char *rootfs)
{
	mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0);
	if (chdir(rootfs))
		_exit(4);
	mkdir("proc", 0755);
	mkdir("dev", 0755);
	mkdir("sys", 0755);
	mount("proc", "proc", "proc", 0, 0);
	mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	mkdir("dev/pts", 0755);
	mkdir("dev/shm", 0755);
	mkdir("dev/mqueue", 0755);
	mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
	mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0);
	mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, 0);
}

static void make_devices(void)
{
	static const struct { const char *name; int major, minor; } nodes[] = {
		{"dev/null", 1, 3}, {"dev/random", 1, 8}, {"dev/full", 1, 7}, {"dev/tty", 5, 0}, {"dev/zero", 1, 5}, {"dev/urandom", 1, 9}};
	static const char *links[][2] = {{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
		{"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"}};

	for (int i = 0; i < 6; i++)
		mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor));
	for (int i = 0; i < 5; i++)
		(void)!symlink(links[i][0], links[i][1]);
}

static void protect(void)
{
	static const char *files[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", 0};
	static const char *directories[] = {"/proc/acpi", "/sys/firmware", "/proc/scsi", 0};
	static const char *read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", 0};

	for (int i = 0; files[i]; i++)
		mount("/dev/null", files[i], 0, MS_BIND, 0);
	for (int i = 0; directories[i]; i++)
		mount("tmpfs", directories[i], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1");
	for (int i = 0; read_only[i]; i++) {
		mount(read_only[i], read_only[i], 0, MS_BIND | MS_REC, 0);
		mount(0, read_only[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	}
	mount(0, "/", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	const char *id = argv[1];
	struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET, .exit_signal = SIGCHLD};
	make_cgroups(id, argv[2], &args);
	long pid = syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0)
		return 3;
	if (pid == 0) {
		char *environment[] = {0};
		enter_cgroups();
		mount_all(argv[3]);
		make_devices();
		if (syscall(SYS_pivot_root, ".", "."))
			_exit(6);
		umount2(".", MNT_DETACH);
		if (chdir("/"))
			_exit(7);
		sethostname("floor", 5);
		protect();
		execve(argv[4], argv + 4, environment);
		_exit(8);
	}
	int status;
	waitpid(pid, &status, 0);
	remove_cgroups(id);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
