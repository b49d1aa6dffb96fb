//! Commands that log in as a role with what `init --role` grants it, and no more.

use std::io::Write;
use std::process::Stdio;

use super::{Server, TestEnv, postgres};

impl TestEnv {
    /// As [`TestEnv::new`], and commands log in as a loader.
    pub(crate) fn for_loader(server: Server) -> Self {
        let mut env = Self::new(server);
        env.grant("loader");
        env.log_in_as("loader");
        env
    }

    /// Runs what `init --role` prints in psql, as the owner.
    pub(crate) fn grant(&self, role: &str) {
        let sql = self.pgsluice(&["init", "--role", role, "--print"]).succeeds().stdout;
        let program = postgres().program("psql");
        let mut psql = self.command(program.to_str().expect("a path in UTF-8"));
        psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", &self.database.url()]);
        let mut psql = psql.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql");
        psql.stdin.take().expect("its stdin").write_all(sql.as_bytes()).expect("psql reads");
        let output = psql.wait_with_output().expect("psql ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// From here on, commands log in as a new member of this role. Returns the member's name.
    pub(crate) fn log_in_as(&mut self, role: &str) -> String {
        let login = format!("{role}_{}", self.database.texts("select current_database()").remove(0));
        self.database.execute(&format!("create role {login} login password 'pw'; grant pgsluice_{role} to {login}"));
        let url = self.database.url();
        let (_, address) = url.rsplit_once('@').expect("credentials");
        self.set("DATABASE_URL", format!("postgres://{login}:pw@{address}"));
        login
    }
}
