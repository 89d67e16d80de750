//! Real software from Debian's packages, in images that are built here: nginx, Redis, PostgreSQL. The programs and
//! their libraries are those of this machine, so nothing is fetched; what is not installed is skipped, loudly.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use reeve_tests::cluster::Cluster;
use reeve_tests::patience::eventually_is;
use reeve_tests::space::Space;

/// What a container may not do in a careful cluster, and who it is.
const CAREFUL: &str = r#""securityContext": {"runAsNonRoot": true, "runAsUser": 999, "runAsGroup": 999,
    "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}"#;

/// A build context: a root with programs of this machine, to be copied upon the tests' own image.
struct Kitchen {
    context: PathBuf,
}

impl Kitchen {
    /// `None`, loudly, when a program is not here.
    fn new(name: &str, programs: &[PathBuf]) -> Option<Self> {
        let own = Self { context: Cluster::shared().home().join(format!("software-{name}")) };
        let mut files = BTreeSet::new();
        for program in programs {
            if !program.is_file() {
                eprintln!("SKIPPED: no {} (deploy/scripts/deps.sh test installs it)", program.display());
                return None;
            }
            files.extend(libraries(program));
            files.insert(program.clone());
        }
        for file in files {
            let to = own.inside(&file);
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder of the context");
            fs::copy(&file, &to).expect("a copy of a program");
        }
        Some(own)
    }

    /// Where a path of this machine lies in the context.
    fn inside(&self, path: &Path) -> PathBuf {
        self.context.join("root").join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Takes a file or a whole folder along.
    fn take(&self, path: &Path) {
        let to = self.inside(path);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder of the context");
        let copied = Command::new("cp").arg("-rL").arg(path).arg(&to).status().expect("cp starts");
        assert!(copied.success(), "{} is copied", path.display());
    }

    /// Builds the image upon `box:v1`.
    fn build(&self, tag: &str, dockerfile: &str) {
        fs::write(self.context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        let cluster = Cluster::shared();
        let (data_dir, context) = (cluster.data_dir(), self.context.to_string_lossy());
        let place = ["--name", &cluster.name, "--data-dir", &data_dir.to_string_lossy()];
        cluster.reeve(&[&["build", "-q", "-t", tag][..], &place, &[context.as_ref()]].concat()).done();
    }
}

/// The shared libraries of a program, its loader too.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

/// A folder of the node for user 999.
fn data_folder(name: &str) -> String {
    let data = Cluster::shared().home().join(name);
    fs::create_dir_all(&data).expect("a folder");
    std::os::unix::fs::chown(&data, Some(999), Some(999)).expect("its owner");
    serde_json::json!({"name": "data", "hostPath": {"path": data}}).to_string()
}

/// A pod of one careful container.
fn careful(name: &str, image: &str, container: &str, volumes: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{name}"}}}},
        "spec": {{"terminationGracePeriodSeconds": 30, "securityContext": {{"fsGroup": 999}}, "volumes": [{volumes}],
          "containers": [{{"name": "main", "image": "{image}", {CAREFUL}, {container}}}]}}}}"#
    )
}

fn log(space: &Space<'_>, pod: &str) -> String {
    space.kubectl(&["logs", pod]).stdout
}

/// Kills the pod's first process from outside, and waits until it has been started again.
fn kill_hard(space: &Space<'_>, pod: &str) {
    let restarts = || space.get(&format!("pod/{pod}"), "{.status.containerStatuses[0].restartCount}");
    let before = restarts();
    let first = space.processes(pod).iter().map(|process| process.pid).min().expect("a process of the pod");
    Command::new("kill").args(["-9", &first.to_string()]).status().expect("kill starts");
    eventually_is("it is started again", restarts, |now| now != before);
    space.ready(pod);
}

const NGINX: &str = r#"# syntax=docker/dockerfile:1
FROM box:v1
COPY root/ /
RUN set -eux; mkdir -p /etc /var/log/nginx /var/lib/nginx; \
    # forward request and error logs to the container's log
    ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log; \
    echo 'www-data:x:33:33::/:' >/etc/passwd; echo 'www-data:x:33:' >/etc/group; \
    busybox chown 999:999 /var/lib/nginx; mkdir -p /run; chmod 1777 /run
COPY <<-EOF /etc/nginx/nginx.conf
	pid /run/nginx.pid;
	events {}
	http {
	  access_log /var/log/nginx/access.log;
	  server {
	    listen 80;
	    location / { root /srv; }
	    location /slow { root /srv; limit_rate 4k; try_files /big =404; }
	    location /echo { return 200 "\$request_uri \$http_host\\n"; }
	  }
	}
EOF
VOLUME /run /var/lib/nginx
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["/usr/sbin/nginx", "-g", "daemon off;"]
"#;

#[test]
fn nginx_serves_a_config_map_behind_a_service_and_finishes_what_it_has_begun() {
    let Some(kitchen) = Kitchen::new("nginx", &["/usr/sbin/nginx".into()]) else { return };
    kitchen.build("soft-nginx:v1", NGINX);
    let space = Cluster::shared().space("soft-nginx");
    let big = "x".repeat(12 << 10);
    let page = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page"},
        "data": {"index.html": "served\n", "big": big}});
    space.apply(&page.to_string());
    let serve = r#""volumeMounts": [{"name": "page", "mountPath": "/srv"}],
        "ports": [{"containerPort": 80, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}"#;
    space.apply(&careful("web", "soft-nginx:v1", serve, r#"{"name": "page", "configMap": {"name": "page"}}"#));
    space.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 8080, "targetPort": "http"}]}}"#,
    );
    space.apply(&super::pods::pod("client", &super::pods::script("mkdir -p /tmp; sleep 600"), ""));
    space.ready("web");
    space.ready("client");
    let page = || space.kubectl(&["exec", "client", "--", "wget", "-qO-", "http://web:8080/"]).stdout;
    eventually_is("the Service leads to it", page, |page| page == "served\n");
    assert_eq!(space.sh("client", "wget -qO- http://web:8080/echo?a=1"), "/echo?a=1 web:8080\n");
    assert_eq!(space.sh("web", "id -u; grep CapEff /proc/self/status"), "999\nCapEff:\t0000000000000000\n");
    let said = || log(&space, "web");
    eventually_is("what it served is in its log", said, |log| log.contains("\"GET /echo?a=1 HTTP/1.1\" 200"));
    let ip = space.get("pod/web", "{.status.podIP}");
    let fetch = format!("(wget -qO /tmp/got http://{ip}/slow; echo $? >/tmp/code) >/dev/null 2>&1 & sleep 1");
    space.sh("client", &fetch).clear();
    space.kubectl(&["delete", "pod", "web"]).done();
    let came = space.sh("client", "until test -e /tmp/code; do sleep 0.1; done; cat /tmp/code; wc -c </tmp/got");
    assert_eq!(came, format!("0\n{}\n", big.len()));
}

const REDIS: &str = r#"FROM box:v1
COPY root/ /
RUN set -eux; mkdir -p /data /etc; echo 'redis:x:999:999::/data:/bin/sh' >/etc/passwd; \
    echo 'redis:x:999:' >/etc/group; busybox chown redis:redis /data
COPY --chmod=755 <<'EOF' /bin/docker-entrypoint.sh
#!/bin/sh
set -e
# first arg is `-f` or `--some-option`
if [ "${1#-}" != "$1" ]; then set -- redis-server "$@"; fi
exec "$@"
EOF
ENV PATH=/usr/bin:$PATH
VOLUME /data
USER redis
WORKDIR /data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
"#;

#[test]
fn redis_keeps_what_it_was_told_when_it_is_killed_and_when_its_pod_is_replaced() {
    let programs = ["redis-server", "redis-cli", "redis-benchmark"].map(|name| Path::new("/usr/bin").join(name));
    let Some(kitchen) = Kitchen::new("redis", &programs) else { return };
    kitchen.build("soft-redis:v1", REDIS);
    let space = Cluster::shared().space("soft-redis");
    let ping = r#""readinessProbe": {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 1}"#;
    let options = r#""args": ["--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no"]"#;
    let container = format!(r#"{ping}, {options}, "volumeMounts": [{{"name": "data", "mountPath": "/data"}}]"#);
    let redis = careful("redis", "soft-redis:v1", &container, &data_folder("redis-data"));
    space.apply(&redis);
    // Its data is the image's own volume here: written, though the root is read-only, and gone with the container.
    space.apply(&careful("own", "soft-redis:v1", &format!("{ping}, {options}"), ""));
    space.ready("redis");
    space.ready("own");
    let ip = space.get("pod/redis", "{.status.podIP}");
    let load = format!("redis-benchmark -h {ip} -q -n 2000 -c 8 -t set,incr");
    assert!(space.sh("own", &load).contains("requests per second"));
    for pod in ["redis", "own"] {
        let told = space.sh(pod, "redis-cli set told once; busybox stat -c %u appendonlydir");
        assert_eq!(told, "OK\n999\n");
        kill_hard(&space, pod);
    }
    assert_eq!(space.sh("redis", "redis-cli get told; redis-cli get counter:__rand_int__"), "once\n2000\n");
    assert_eq!(space.sh("own", "redis-cli get told"), "\n");
    space.kubectl(&["delete", "pod", "redis"]).done();
    space.apply(&redis);
    space.ready("redis");
    assert_eq!(space.sh("redis", "redis-cli get told"), "once\n");
}

const POSTGRES: &str = r#"FROM box:v1
ARG PG_MAJOR
ENV LANG=C PATH=/usr/lib/postgresql/$PG_MAJOR/bin:$PATH PGDATA=/var/lib/postgresql/data/pgdata
COPY root/ /
RUN set -eux; mkdir -p /etc /tmp "${PGDATA%/*}" /var/run/postgresql; chmod 1777 /tmp; \
    echo 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >/etc/passwd; echo 'postgres:x:999:' >/etc/group; \
    busybox chown postgres:postgres "${PGDATA%/*}" /var/run/postgresql; chmod 3777 /var/run/postgresql
COPY --chmod=u=rwX,go=rX <<-'EOF' /docker-entrypoint-initdb.d/first.sql
	create table told (what text);
EOF
COPY --chmod=+x <<'EOF' /bin/docker-entrypoint.sh
#!/bin/sh
set -e
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --auth=trust --encoding=UTF8 --locale=C >/dev/null
  postgres --single -j postgres </docker-entrypoint-initdb.d/first.sql >/dev/null
fi
exec "$@"
EOF
VOLUME ["/var/lib/postgresql/data", "/var/run/postgresql", "/tmp"]
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
"#;

/// The newest PostgreSQL of this machine: its version.
fn postgres_version() -> String {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = entries.filter_map(|entry| entry.file_name().into_string().ok()?.parse::<u32>().ok());
    versions.max().unwrap_or(15).to_string()
}

/// An image with it and what it reads at run time.
fn build_postgres(tag: &str) -> bool {
    let version = postgres_version();
    let home = Path::new("/usr/lib/postgresql").join(&version);
    let programs = ["postgres", "initdb", "psql", "pg_isready"].map(|name| home.join("bin").join(name));
    let Some(kitchen) = Kitchen::new("postgresql", &programs) else { return false };
    for name in ["plpgsql.so", "dict_snowball.so"] {
        kitchen.take(&home.join("lib").join(name));
    }
    kitchen.take(&Path::new("/usr/share/postgresql").join(&version));
    kitchen.build(tag, &POSTGRES.replace("ARG PG_MAJOR", &format!("ARG PG_MAJOR={version}")));
    true
}

#[test]
fn postgresql_recovers_when_it_is_killed_and_shuts_down_when_it_is_asked() {
    if !build_postgres("soft-postgres:v1") {
        return;
    }
    let space = Cluster::shared().space("soft-postgres");
    let ask = r#"{"exec": {"command": ["pg_isready", "-h", "127.0.0.1"]}, "periodSeconds": 1, "failureThreshold": 60}"#;
    let container = format!(
        r#""startupProbe": {ask}, "readinessProbe": {ask}, "ports": [{{"containerPort": 5432}}],
        "args": ["postgres", "-c", "dynamic_shared_memory_type=posix", "-c", "max_parallel_workers_per_gather=2"],
        "volumeMounts": [{{"name": "data", "mountPath": "/var/lib/postgresql/data"}},
          {{"name": "shm", "mountPath": "/dev/shm"}}]"#
    );
    let shm = r#"{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "96Mi"}}"#;
    let manifest = careful("db", "soft-postgres:v1", &container, &format!("{}, {shm}", data_folder("postgres-data")));
    space.apply(&manifest);
    space.ready("db");
    let sql = |text: &str| {
        let psql = ["exec", "-i", "db", "--", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "postgres"];
        space.kubectl_with(&psql, text).text()
    };
    let parallel = "set parallel_setup_cost=0; set parallel_tuple_cost=0; set min_parallel_table_scan_size=0;";
    sql("insert into told select n::text from generate_series(1, 20000) n; analyze told;").clear();
    assert_eq!(sql(&format!("{parallel} select count(*), max(length(what)) from told")), "20000|5\n");
    let shared = space.sh("db", "busybox df -m /dev/shm");
    assert!(shared.split_whitespace().any(|word| word == "96"), "the shared memory that was asked for: {shared}");
    kill_hard(&space, "db");
    assert_eq!(sql("select count(*) from told"), "20000\n");
    let recovered = log(&space, "db");
    assert!(recovered.contains("automatic recovery in progress"), "{recovered}");
    space.kubectl(&["delete", "pod", "db"]).done();
    space.apply(&manifest);
    space.ready("db");
    assert_eq!(sql("select count(*) from told"), "20000\n");
    let clean = log(&space, "db");
    assert!(clean.contains("database system was shut down at") && !clean.contains("recovery"), "{clean}");
}
