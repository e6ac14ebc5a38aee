//! Scratch: windows of a sequence folder against their truth.
use geometry::*; use odometry::*; 
fn med(v:&mut Vec<f64>)->f64{ if v.is_empty(){return f64::NAN} v.sort_by(f64::total_cmp); let n=v.len(); if n%2==1 {v[n/2]} else {0.5*(v[n/2-1]+v[n/2])} }
fn cpu()->f64{ std::fs::read_to_string("/proc/self/schedstat").unwrap().split(' ').next().unwrap().parse::<f64>().unwrap()/1e6 }
fn main(){
 let a:Vec<String>=std::env::args().collect(); let dir=&a[1]; let stride:usize=a[2].parse().unwrap(); let verbose=a.len()>3;
 let s:serde_json::Value=serde_json::from_slice(&std::fs::read(format!("{dir}/sequence.json")).unwrap()).unwrap();
 let k=&s["intrinsics"]; let g=|n:&str|k[n].as_f64().unwrap();
 let poses:Vec<Transform<World,Camera>>=s["poses"].as_array().unwrap().iter().map(|p|{ let mut v=vec![]; fn flat(x:&serde_json::Value,v:&mut Vec<f64>){ match x { serde_json::Value::Array(l)=>l.iter().for_each(|y|flat(y,v)), y=>v.push(y.as_f64().unwrap()) } } flat(p,&mut v); let m:[f64;16]=v.try_into().unwrap(); Transform::from_matrix_row_major(&m).unwrap()}).collect();
 let metric=s["metric"].as_bool().unwrap_or(false);
 let load=|i:usize|{ let mut p=format!("{dir}/frames/{i:06}.jpg"); if !std::path::Path::new(&p).exists(){p=format!("{dir}/frames/{i:06}.png");} image::open(&p).unwrap().into_rgb8()};
 let mut greys=vec![]; let mut kk=None;
 for i in 0..poses.len(){ let im=load(i); kk=Some(Intrinsics::new(g("fx"),g("fy"),g("cx"),g("cy"),im.width(),im.height()).unwrap()); greys.push(Grey::from_rgb(im.width() as usize,im.height() as usize,im.as_raw()).unwrap()); }
 let kk=kk.unwrap();
 let depth=(0..1).filter_map(|_|{ let p=format!("{dir}/depth/000000.png"); let d=image::open(&p).ok()?.into_luma16(); let mut v:Vec<f64>=d.pixels().filter(|p|p.0[0]>0).map(|p|p.0[0] as f64/1000.).collect(); Some(med(&mut v))}).next();
 let (mut r,mut t,mut tt,mut ts)=(vec![],vec![],vec![],vec![]); let mut n=0; let mut turned=0;
 for w in 0..poses.len().saturating_sub(4*stride){
  n+=1; let idx:[usize;5]=std::array::from_fn(|j|w+j*stride);
  let truth=WindowTrajectory::from_world(&idx.map(|i|poses[i]));
  let c0=cpu();
  let pics=idx.map(|i|Picture::new(Stamp::from_nanos(i as i64),&kk,&greys[i]).unwrap());
  ts.push(cpu()-c0);
  let sol=odometry::window::solve(&pics,None).unwrap(); tt.push(cpu()-c0);
  match sol { Ok(sol)=>{ let e=WindowErrors::new(&truth,&sol.trajectory,SceneScale{metric,median_depth:depth}); if sol.motion==odometry::window::Motion::Turned {turned+=1;}
    if verbose {println!("{w} rre {:.3} tde {:?} n {} obs {} sig {:.2} par {:.1} {:?} ",e.rre_deg,e.tde_deg,sol.points,sol.observations,sol.sigma_px,sol.parallax_px,sol.motion);}
    r.push(e.rre_deg); if let Some(x)=e.tde_deg {t.push(x);} } Err(e)=>{ if verbose {println!("{w} {e}");} } }
 }
 println!("{} {:.2} {:.4} {:.3} {:.1} {:.1} {}",n,r.len() as f64/n as f64,med(&mut r),med(&mut t),med(&mut ts),med(&mut tt),turned);
}
