//! Joins page views with the users who viewed, and counts by region and minute.

use fleuve_streams::{ErrorPolicy, Json, TimeWindows, Topology, Windowed};
use serde::{Deserialize, Serialize};

/// Page views, in any order of keys; a record's timestamp is when the page was viewed.
pub const VIEWS: &str = "demo-page-views";
/// Users by id.
pub const USERS: &str = "demo-users";
/// Views of each region and minute, by region.
pub const REGIONS: &str = "demo-views-by-region";

/// Somebody looked at a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageView {
    /// When, in milliseconds since 1970.
    pub viewtime: i64,
    /// Who.
    pub userid: String,
    /// What.
    pub pageid: String,
}

/// Somebody who looks at pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Since when, in milliseconds since 1970.
    pub registertime: i64,
    /// Who.
    pub userid: String,
    /// From where.
    pub regionid: String,
    /// `MALE`, `FEMALE` or `OTHER`.
    pub gender: String,
}

/// How often pages were viewed from a region within a minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionViews {
    /// The region.
    pub regionid: String,
    /// When the minute began, in milliseconds since 1970.
    pub minute: i64,
    /// How often.
    pub views: i64,
}

/// The region of users who are not known.
pub const UNKNOWN: &str = "unknown";
/// The length of a window.
pub const MINUTE_MS: i64 = 60_000;
/// How late a view may come.
const GRACE_MS: i64 = 10_000;

/// Views and users in, views by region and minute out.
pub fn topology() -> Topology {
    let app = Topology::new("demo-page-views");
    app.on_error(ErrorPolicy::Skip);
    let users = app.table::<String, Json<User>>(USERS);
    app.stream::<(), Json<PageView>>(VIEWS)
        .select_key(|_, view| view.userid.clone())
        .left_join(&users, |_, user| match user {
            Some(user) => user.regionid.clone(),
            None => UNKNOWN.to_owned(),
        })
        .group_by(|_, region| region.clone())
        .windowed_by(TimeWindows::of_ms(MINUTE_MS, GRACE_MS))
        .count("views-by-region")
        .to_stream()
        .map(|Windowed { key, window }, views: Option<i64>| {
            let regionid = key.clone();
            (key, Json(RegionViews { regionid, minute: window.start, views: views.unwrap_or(0) }))
        })
        .to(REGIONS);
    app
}

#[cfg(test)]
mod tests {
    use fleuve_streams::TestDriver;

    use super::*;

    fn user(driver: &mut TestDriver, id: &str, region: &str) {
        let user = User {
            registertime: 0,
            userid: id.to_owned(),
            regionid: region.to_owned(),
            gender: "OTHER".to_owned(),
        };
        driver.input(USERS).at(0).send(&id.to_owned(), &Json(user));
    }

    fn view(driver: &mut TestDriver, at: i64, id: &str) {
        let view = PageView { viewtime: at, userid: id.to_owned(), pageid: "Page_10".to_owned() };
        driver.input(VIEWS).at(at).send(&(), &Json(view));
    }

    fn counted(driver: &mut TestDriver) -> Vec<(String, i64, i64)> {
        let counts = driver.output::<String, Json<RegionViews>>(REGIONS).pairs();
        counts.into_iter().map(|(region, count)| (region, count.minute, count.views)).collect()
    }

    #[test]
    fn views_count_for_the_region_of_their_user() {
        let mut driver = TestDriver::new(&topology()).expect("a valid topology");
        user(&mut driver, "User_1", "Region_7");
        user(&mut driver, "User_2", "Region_3");
        view(&mut driver, 1_000, "User_1");
        view(&mut driver, 2_000, "User_2");
        view(&mut driver, 3_000, "User_1");
        view(&mut driver, 4_000, "User_9");
        assert_eq!(
            counted(&mut driver),
            [
                ("Region_7".to_owned(), 0, 1),
                ("Region_3".to_owned(), 0, 1),
                ("Region_7".to_owned(), 0, 2),
                ("unknown".to_owned(), 0, 1),
            ]
        );
    }

    #[test]
    fn whoever_moves_counts_where_they_live_now() {
        let mut driver = TestDriver::new(&topology()).expect("a valid topology");
        user(&mut driver, "User_1", "Region_7");
        view(&mut driver, 1_000, "User_1");
        user(&mut driver, "User_1", "Region_8");
        view(&mut driver, 2_000, "User_1");
        let expected = [("Region_7".to_owned(), 0, 1), ("Region_8".to_owned(), 0, 1)];
        assert_eq!(counted(&mut driver), expected);
    }

    #[test]
    fn each_minute_counts_for_itself_and_takes_late_views_for_ten_seconds() {
        let mut driver = TestDriver::new(&topology()).expect("a valid topology");
        user(&mut driver, "User_1", "Region_7");
        view(&mut driver, 59_999, "User_1");
        view(&mut driver, 69_999, "User_1");
        view(&mut driver, 10_000, "User_1");
        view(&mut driver, 70_000, "User_1");
        view(&mut driver, 11_000, "User_1");
        let region = || "Region_7".to_owned();
        assert_eq!(
            counted(&mut driver),
            [(region(), 0, 1), (region(), 60_000, 1), (region(), 0, 2), (region(), 60_000, 2)]
        );
    }

    #[test]
    fn what_is_no_view_is_left_out() {
        let mut driver = TestDriver::new(&topology()).expect("a valid topology");
        driver.input(VIEWS).send_bytes(None, Some(b"{\"viewtime\":".to_vec().into()));
        view(&mut driver, 1, "User_1");
        assert_eq!(counted(&mut driver), [("unknown".to_owned(), 0, 1)]);
    }
}
